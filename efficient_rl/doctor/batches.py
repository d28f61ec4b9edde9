"""Reports the effective batch of a run, and whether its processes can share it."""

from efficient_rl.config.run_config import RunConfig
from efficient_rl.doctor.finding import Finding, counted, ok
from efficient_rl.errors import ConfigError

FEWEST_PROMPTS = 8


def check_batch(run: RunConfig, processes: int) -> list[Finding]:
    """The effective batch as a sentence, and what training would refuse."""
    from efficient_rl.training.settings import split_batch

    grpo = run.grpo
    micro, passes = grpo.per_device_train_batch_size, grpo.gradient_accumulation_steps
    batch = micro * passes
    prompts = batch // grpo.num_generations
    findings = []
    try:
        split_batch(grpo, processes, micro_batches=1)
    except ConfigError as error:
        what, _, remedy = str(error).partition("; ")
        findings.append(Finding("failure", "batch", what, "the run refuses to start", remedy))
    if prompts < FEWEST_PROMPTS:
        what = f"a step sees {prompts} prompts ({batch} completions in groups of {grpo.num_generations})"
        remedy = f"grpo.gradient_accumulation_steps={-(-FEWEST_PROMPTS * grpo.num_generations // micro)}"
        why = "gradients from so few groups are mostly noise"
        findings.append(Finding("warning", "batch", what, why, remedy))
    sentence = (
        f"a step: {prompts} prompts x {grpo.num_generations} = {batch} completions, "
        f"in {passes} passes of {micro} over {counted(processes, 'process')}"
    )
    return findings or [ok("batch", sentence)]
