"""Your own TRL script, cheaper: `EfficientGRPOTrainer(strategy=...)` replaces `GRPOTrainer(...)`.

The last two blocks of the embedded model learn to close answers with a tag. Needs no GPU."""

from importlib.resources import files

from datasets import Dataset
from transformers import PrinterCallback
from trl import GRPOConfig

from efficient_rl.strategies.static import LastK
from efficient_rl.training.grpo import EfficientGRPOTrainer

MODEL = str(files("efficient_rl") / "nano" / "model")  # or a name on the hub: "Qwen/Qwen2.5-0.5B-Instruct"


def closed(completions: list[str], **_: object) -> list[float]:
    """1 for a completion with the closing tag, else 0."""
    return [float("</answer>" in text) for text in completions]


data = Dataset.from_list([{"prompt": f"{a},{a + 2},3={2 * a + 5}:"} for a in range(1, 9)])
quiet = {"disable_tqdm": True, "report_to": [], "save_strategy": "no", "bf16": False}  # leave bf16 out on a GPU
args = GRPOConfig(max_steps=8, per_device_train_batch_size=32, learning_rate=6e-4, logging_steps=1, **quiet)
trainer = EfficientGRPOTrainer(MODEL, closed, args, train_dataset=data, strategy=LastK(2))
trainer.remove_callback(PrinterCallback)  # the lines below are enough
trainer.train()
for line in trainer.state.log_history[:-1]:  # the last one sums up
    print(f"step {line['step']}: loss {line['loss']:.3f}, reward {line['reward']:.2f}")
print("MiB at most:", {name: round(size / 2**20, 1) for name, size in trainer.meter.most_bytes.items()})
