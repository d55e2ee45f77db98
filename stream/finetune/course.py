"""`Course`: one fine-tuning from the first picture to the checkpoint.

Owns: the order of things, what is kept in the folder, when it ends. Runs in the thread that iterates over it. Never:
draws a bar or prints.

    OUT/checkpoint.pt     the best weights so far, `{"model": ...}` as Meta writes them
    OUT/state.pt          from where `resume` goes on; not there any more once it is done
    OUT/finetune.json     `Report`
    OUT/sheet.png         the held-out pictures that changed most, before and after
    OUT/tensorboard/      losses, rate, validation
    OUT/pictures/         the album; not there any more once it is done
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import msgspec
import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from engines.weights import load_state_dict, model_config
from engines.whole_file import moved_in
from stream.finetune.album import Album
from stream.finetune.loop import Losses, Trainer, export
from stream.finetune.material import Division
from stream.finetune.samples import Samples, VideoBatch, batches
from stream.finetune.settings import FinetuneError, Settings
from stream.finetune.sheet import draw_sheet
from stream.finetune.validation import Judge, Verdict
from stream.quality import SequenceScore

SECONDS_BETWEEN_SAVES = 120.0
CHECKPOINT, STATE, REPORT, SHEET, PICTURES, BOARD = (
    "checkpoint.pt", "state.pt", "finetune.json", "sheet.png", "pictures", "tensorboard",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Progress:
    """What is being done, and how much of it is."""

    stage: str  # decoding, judging, learning
    num_done: int
    num_all: int
    text: str = ""


Events = Generator[Progress | Verdict, None, None]


class History(msgspec.Struct, frozen=True, kw_only=True):
    """What a run that goes on has to know of itself."""

    settings: Settings
    verdicts: tuple[Verdict, ...] = ()
    scores_before: tuple[SequenceScore, ...] = ()
    scores_best: tuple[SequenceScore, ...] = ()
    seconds: float = 0.0  # spent learning and judging


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """`finetune.json`."""

    settings: Settings
    learned: tuple[str, ...]  # names of clips
    held_out: tuple[str, ...]
    num_pictures: int  # learned from
    device: str
    seconds: float
    steps: int  # taken
    ended: str  # why
    verdicts: tuple[Verdict, ...]  # the first is of the original weights
    best_step: int | None  # of checkpoint.pt; None: nothing was held out


class _Clock:
    """Seconds of learning and judging, those before an interruption included. Written by the training thread."""

    def __init__(self, seconds_before: float) -> None:
        self._start = time.monotonic() - seconds_before
        self._saved = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start

    def is_save_due(self) -> bool:
        """True once in a while."""
        is_due = time.monotonic() - self._saved > SECONDS_BETWEEN_SAVES
        if is_due:
            self._saved = time.monotonic()
        return is_due


class Course:
    """Every field is written by the thread that runs it. `history` grows by a verdict for each validation."""

    def __init__(
        self, settings: Settings, division: Division, out: Path, *, weights: dict[str, Tensor], device: torch.device
    ) -> None:
        self.history = History(settings=settings)
        self.report: Report | None = None
        self.device = device
        self._settings, self._division, self._out, self._weights = settings, division, out, weights
        self._judge = Judge(settings.model, division.held_out, prompt=settings.prompt, device=device)
        self._num_pictures = 0

    @property
    def best(self) -> Verdict | None:
        """The best trained weights'; nothing was trained before the first step."""
        return max(self._trained, key=lambda verdict: verdict.j_and_f, default=None)

    @property
    def _trained(self) -> tuple[Verdict, ...]:
        return tuple(verdict for verdict in self.history.verdicts if verdict.step)

    def run(self, *, num_workers: int = 0, resume: bool = False) -> Events:
        """Do it all. Closing the iterator keeps the state. Raises `FinetuneError`, `FootageError`, `MaskFileError`."""
        self._check_folder(resume)
        album = Album(self._out / PICTURES, int(model_config(self._settings.model).image_size))
        num_all = sum(len(clip.truth.annotated) for clip in self._division.learned)
        for num_done in album.make(self._division.learned):
            yield Progress("decoding", num_done, num_all)
        self._num_pictures = sum(len(page.leaves) for page in album.pages)
        trainer = Trainer(self._settings, self._weights, self.device)
        if resume:
            self._take_up(trainer.resume(self._out / STATE))
        elif self._division.held_out:
            yield (yield from self._validate(self._weights, 0))
        yield from self._learn(trainer, Samples(album, self._settings), num_workers)
        self._conclude(trainer)

    def _check_folder(self, resume: bool) -> None:
        state = self._out / STATE
        if resume and not state.is_file():
            raise FinetuneError(f"{state} is not there, expected the state of a run that was interrupted")
        for name in () if resume else (STATE, CHECKPOINT):
            if (self._out / name).exists():
                what = "--resume, or another folder" if name == STATE else "another folder"
                raise FinetuneError(f"{self._out / name} is there from an earlier run, expected {what}")
        self._out.mkdir(parents=True, exist_ok=True)

    def _take_up(self, text: str) -> None:
        history = msgspec.json.decode(text, type=History)
        before, now = msgspec.to_builtins(history.settings), msgspec.to_builtins(self._settings)
        for name, value in now.items():
            if before[name] != value:
                raise FinetuneError(
                    f"{self._out / STATE} was made with {name} = {before[name]}, expected that instead of {value}"
                )
        self.history = history

    def _learn(self, trainer: Trainer, samples: Samples, num_workers: int) -> Events:
        """Whatever ends it, the state is kept."""
        clock, each = _Clock(self.history.seconds), self._settings.accumulate
        loader = batches(samples, range(trainer.step * each, self._settings.steps * each), num_workers=num_workers)
        with SummaryWriter(self._out / BOARD, purge_step=trainer.step) as board:
            try:
                yield from self._step(trainer, loader, board, clock=clock)
            finally:
                self._save(trainer, clock.seconds)

    def _step(self, trainer: Trainer, loader: Iterator[VideoBatch], board: SummaryWriter, *, clock: _Clock) -> Events:
        num_steps = self._settings.steps
        while True:
            if self._is_due(trainer.step):
                yield from self._look(trainer, board)
                self._save(trainer, clock.seconds)
            if trainer.step >= num_steps or self._is_over:
                return
            losses = trainer.learn(loader)
            _log(board, trainer, losses)
            yield Progress("learning", trainer.step, num_steps, f"loss {losses['total']:.3f}")
            if clock.is_save_due():
                self._save(trainer, clock.seconds)

    def _is_due(self, step: int) -> bool:
        """Whether these weights are to be judged, and were not yet."""
        is_mark = step > 0 and (step % self._settings.validate_every == 0 or step == self._settings.steps)
        return is_mark and step not in {verdict.step for verdict in self.history.verdicts}

    @property
    def _is_over(self) -> bool:
        """Whether the best verdict is too long ago."""
        best = self.best
        if best is None:
            return False
        return len(self._trained) - 1 - self._trained.index(best) >= self._settings.patience

    def _look(self, trainer: Trainer, board: SummaryWriter) -> Events:
        """Judge the average weights; keep them where they are the best so far."""
        if not self._division.held_out:
            export(trainer.average, self._out / CHECKPOINT)
            return
        verdict = yield from self._validate(trainer.average, trainer.step)
        for name, value in (("J&F", verdict.j_and_f), ("J", verdict.summary.j.mean), ("F", verdict.summary.f.mean)):
            board.add_scalar(f"validation/{name}", value, verdict.step)
        if verdict is self.best:
            export(trainer.average, self._out / CHECKPOINT)
            self.history = msgspec.structs.replace(self.history, scores_best=self._judge.scores)
        yield verdict

    def _validate(self, weights: dict[str, Tensor], step: int) -> Generator[Progress, None, Verdict]:
        for num_done, num_all in self._judge.judge(weights, step):
            yield Progress("judging", num_done, num_all)
        verdict = self._judge.verdict
        assert verdict is not None, "what was judged has a verdict"
        before = self.history.scores_before or self._judge.scores
        self.history = msgspec.structs.replace(
            self.history, verdicts=(*self.history.verdicts, verdict), scores_before=before
        )
        return verdict

    def _save(self, trainer: Trainer, seconds: float) -> None:
        self.history = msgspec.structs.replace(self.history, seconds=seconds)
        trainer.save(self._out / STATE, msgspec.json.encode(self.history).decode())

    def _conclude(self, trainer: Trainer) -> None:
        """The sheet and the report; what only a run that goes on needs is removed."""
        if self._division.held_out and self.best is not None:
            trackers = [self._judge.tracker(self._weights)]
            trackers.append(self._judge.tracker(load_state_dict(self._out / CHECKPOINT)))
            scores = self.history.scores_before, self.history.scores_best
            sheet = draw_sheet(trackers, self._division.held_out, scores, prompt=self._judge.prompt)
            cv2.imwrite(str(self._out / SHEET), sheet)
        self.report = self._report(trainer.step)
        with moved_in(self._out / REPORT) as beside:
            beside.write_bytes(msgspec.json.format(msgspec.json.encode(self.report), indent=1))
        shutil.rmtree(self._out / PICTURES)
        (self._out / STATE).unlink()

    def _report(self, steps: int) -> Report:
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"
        return Report(
            settings=self._settings, learned=tuple(clip.name for clip in self._division.learned),
            held_out=tuple(clip.name for clip in self._division.held_out), num_pictures=self._num_pictures,
            device=name, seconds=round(self.history.seconds, 1), steps=steps,
            ended="all steps taken" if steps >= self._settings.steps else "no gain for long",
            verdicts=self.history.verdicts, best_step=None if self.best is None else self.best.step,
        )  # fmt: skip


def _log(board: SummaryWriter, trainer: Trainer, losses: Losses) -> None:
    for name, value in losses.items():
        board.add_scalar(f"loss/{name.removeprefix('loss_')}", value, trainer.step)
    board.add_scalar("rate", trainer.rate, trainer.step)
