"""Shows the batch that a run really has, and whether it divides into groups, processes and micro-batches."""

from efficient_rl.config.run_config import RunConfig
from efficient_rl.doctor.finding import Finding, ok

FEWEST_PROMPTS = 8


def check_batch(run: RunConfig, processes: int) -> list[Finding]:
    """The effective batch as a sentence, and what does not divide."""
    grpo = run.grpo
    micro, batch = grpo.per_device_train_batch_size, grpo.per_device_train_batch_size * grpo.gradient_accumulation_steps
    prompts = batch // grpo.num_generations
    findings = []
    if micro % processes and grpo.gradient_accumulation_steps % processes:
        what = (
            f"{processes} processes divide neither grpo.per_device_train_batch_size={micro} nor "
            f"grpo.gradient_accumulation_steps={grpo.gradient_accumulation_steps}"
        )
        near = -(-micro // processes) * processes
        remedy = f"grpo.per_device_train_batch_size={near}, or launcher.processes_per_run=1"
        findings.append(Finding("failure", "batch", what, "the run refuses to start", remedy))
    if prompts < FEWEST_PROMPTS:
        what = f"a step sees {prompts} prompts ({batch} completions in groups of {grpo.num_generations})"
        remedy = f"grpo.gradient_accumulation_steps={-(-FEWEST_PROMPTS * grpo.num_generations // micro)}"
        findings.append(Finding("warning", "batch", what, "gradients from so few groups are mostly noise", remedy))
    sentence = (
        f"a step: {prompts} prompts x {grpo.num_generations} = {batch} completions, in {grpo.gradient_accumulation_steps} "
        f"passes of {micro} over {processes} process{'es' if processes > 1 else ''}"
    )
    return findings or [ok("batch", sentence)]
