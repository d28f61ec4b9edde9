"""Imports the heavy libraries in the fork server, without computing: that would hang a fork."""

import atexit
import gc
import logging
import os
import signal

signal.signal(signal.SIGINT, signal.SIG_IGN)  # what Ctrl-C means is the launcher's to decide
atexit.register(os._exit, 0)  # taking down what was imported here takes seconds and frees nothing
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # PEFT imports it, and it tells the terminal what it lacks
gc.disable()  # there is no garbage in imports, only a fifth of their time

import datasets  # noqa: F401
import peft  # noqa: F401
import torch  # noqa: F401
import trl  # noqa: F401

import efficient_rl.evaluate
import efficient_rl.models
import efficient_rl.run
import efficient_rl.training.grpo
import efficient_rl.training.run_logger  # noqa: F401

gc.enable()
