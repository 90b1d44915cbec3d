"""The path of one batch, in order: decode, plan, run window after window, report."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_store.budget import BudgetInfeasible
from model_store.preprocessing import normalise
from model_store.windows import BatchBudget, BatchWindow
from service.batch_deadline import affordable_macs
from service.commands import (
    BatchCommand,
    BatchDone,
    BatchImage,
    BoundBy,
    BudgetReport,
    DeadlineReport,
    Timing,
)
from service.decode import DecodedBatch, Decoder
from service.engine.clock import Clock
from service.engine.engine import Engine
from service.engine.exit_policy import WindowCohortPolicy
from service.engine.request import ImageOutcome
from service.errors import BudgetTooSmall, DeadlineMissed, ImageUndecodable
from service.models import Model, Models
from service.plan import outlook
