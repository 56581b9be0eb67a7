"""A run and its folder: what is checked before it begins, how a step is done, what is kept so that it can go on.

    recipe.yaml, metrics.jsonl (a line every few steps), quarantine.jsonl, checkpoint/ (the last two), then report.html and model/

A run that was killed goes on bit by bit: what a step does follows from the checkpoint, the recipe and the step's number alone.

Letters: K data sets of a stage.
"""

from __future__ import annotations

import math
import platform
import resource
import sys
import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from monoglot import __version__
from monoglot.adapters import AdapterSettings, is_adapter, read_adapter, save_adapter, trained_tensors
from monoglot.data.features import FeatureCache
from monoglot.decode.predict import Predictor
from monoglot.decode.search import SearchSettings
from monoglot.errors import InputError
from monoglot.files import write_text
from monoglot.model.features import open_cache
from monoglot.model.linears import pick
from monoglot.model.lora import fold_lora
from monoglot.model.unified import UnifiedModel
from monoglot.report.run import write_run_report
from monoglot.rng import stream
from monoglot.store import base_folder, base_of, model_folder, save_model
from monoglot.train import checkpoint
from monoglot.train.conflicts import Conflicts
from monoglot.train.connectors import begin_connectors
from monoglot.train.critic import Critic, mean_score
from monoglot.train.distributed import World, shared_like, whole
from monoglot.train.gradients import backward, counts, loss_scale, tokens_by_source
from monoglot.train.guard import Signals, Stopped, Watch
from monoglot.train.look import Look
from monoglot.train.optim import averaged, follow, freeze, schedule, set_rate, weights_of
from monoglot.train.progress import LOG_EVERY, Progress, Silent
from monoglot.train.recipe import Recipe, as_page
from monoglot.train.stages import StageRun, facts_of, make_plans, samples
from monoglot.train.start import changed_model, start_model, unchanged
from monoglot.train.steps import Part, Quarantine, Step
from monoglot.train.tracking import Tracking

_FREE = ("workers", "checkpoint_minutes", "samples", "track")
"""Fields of a recipe that may change when a run goes on: no weight depends on them."""


@dataclass
class Stand:
    """Where a run stands, in numbers."""

    step: int = 0
    """Steps that are done."""
    stage: int = 0
    first: int = 0
    """The step at which the stage began."""
    tokens: int = 0
    """Tokens read and written in this stage."""
    places: dict[str, float] = field(default_factory=dict)
    """Rows drawn of each data set before this stage."""
    lowest: dict[str, float] = field(default_factory=dict)
    """The best held-out losses so far."""


class Run:
    """A run under way; `train` drives it.

    Raises:
        InputError: the recipe, its data or the folder are not as they must be; the folder is as it was.
    """

    stage: StageRun
    """The stage that it is in; the last one when it is done."""
    look: Look | None
    critic: Critic | None

    def __init__(self, recipe: Recipe, folder: Path, world: World, *, resume: bool = False, quiet: bool = False):
        self.recipe, self.folder, self.world, self._quiet = recipe, folder, world, quiet
        _check_folder(folder, resume)
        self.plans = make_plans(recipe)
        self.files = {rows.source.name: rows.file.fingerprint() for plan in self.plans for rows in plan.data}
        self._checkpoint = checkpoint.last_checkpoint(folder / "checkpoint") if resume else None
        self._saved = checkpoint.read_run(self._checkpoint) if self._checkpoint else None
        if self._saved is not None:
            self._check_unchanged(self._saved)
        self.stand = Stand(**self._saved["stand"]) if self._saved else Stand()
        self.watch, self.signals, self.quarantine = (
            Watch(recipe.guard),
            Signals(),
            Quarantine(folder / "quarantine.jsonl", recipe.quarantine_share, writes=world.is_first),
        )
        self.average: dict[str, Tensor] | None = None
        self.model, self.tokenizer, self.lineage = start_model(recipe)
        for index in range(min(self.stand.stage, len(self.plans) - 1) + 1):
            self._change_model(index)
        if recipe.connectors and self._saved is None:
            begin_connectors(recipe, self.model, self.tokenizer, quiet=quiet or not world.is_first)
        self._begin_stage()
        self.tracking = Tracking(recipe.track if world.is_first else (), lambda told: self.progress.say(told))

    def __enter__(self) -> Run:
        with ExitStack() as stack:
            stack.callback(self._close_cache)
            self._open(stack)
            self._stack = stack.pop_all()
        return self

    def _open(self, stack: ExitStack) -> None:
        """The folder's files; then where the checkpoint stands, or the first one."""
        log = self.folder / "metrics.jsonl"
        page = as_page(self.recipe)
        if self.world.is_first:
            text = yaml.safe_dump(page, sort_keys=False, allow_unicode=True)
            write_text(self.folder / "recipe.yaml", text)
            for begun in (log, self.quarantine.path, self.folder / checkpoint.BEST) if self._saved is None else ():
                begun.unlink(missing_ok=True)  # by a run that was killed before its first checkpoint
        self.world.wait()
        progress = Progress(log, quiet=self._quiet, on_line=self.tracking.log) if self.world.is_first else Silent()
        self.progress = stack.enter_context(progress)
        stack.enter_context(self.signals.heard())
        self._last_save = time.monotonic()
        if self._saved is not None and self._checkpoint is not None:
            self.progress.load_state(self._saved["progress"])
            self.quarantine.load_state(self._saved["quarantine"])
            self.watch.load_state(self._saved["watch"])
            self._load(self._checkpoint)
            if "stage" in self._saved:
                self.stage.load_state(self._saved["stage"])
        self.tracking.begin(page, self.folder)
        self.progress.begin(
            self.stand.step, machine=self._machine(), precision=precision(self.recipe, self.world.device)
        )
        if self._saved is None:
            self._tell_stage()
            self.save()  # a disk that is full or closed is told before anything is trained

    def __exit__(self, kind: type[BaseException] | None, *error: Any) -> None:
        self._stack.close()
        self.tracking.end(
            "finished" if kind is None else "stopped" if issubclass(kind, KeyboardInterrupt) else "failed"
        )

    @property
    def is_done(self) -> bool:
        return self.stand.stage >= len(self.plans)

    @property
    def stage_is_over(self) -> bool:
        return self.stage.ending.over(self.stand.step - self.stage.first, self.stand.tokens)

    # --- a step ---

    def do(self, step: Step, seconds_waited: float) -> None:
        """Compute a step, judge it, take it or leave it out."""
        recipe, stage, world = self.recipe, self.stage, self.world
        names, objective = stage.plan.names, stage.trainee.objective
        torch.manual_seed(int(stream(recipe.seed, "dropout", step.index, world.rank).integers(1 << 62)))
        if stage.words is not None:
            stage.words.draw(step.index)
        count = counts(step.parts, len(names), world)
        parts = self._with_own_answers(self._as_many_as_others(step))
        if not stage.trainee.training:  # it walks all modules, which is slow beside a small model's step
            stage.module.train()
        set_rate(stage.optimizer, schedule(*stage.progress(step.index, self.stand.tokens), stage.plan.page.optimizer))
        stage.optimizer.zero_grad(set_to_none=True)
        total = world.sum(tokens_by_source(parts, len(names), objective, step.index))
        twice = 2 if recipe.loss.r_drop else 1
        scale = loss_scale(stage.balancer.weights(), count.rows / twice, torch.tensor(stage.mixture.quotas(step.index)))
        conflicts = self._conflicts(step.index)
        losses = backward(
            stage.module, parts, total, scale, world, step.index, conflicts=conflicts, before_part=self._stop_in_time
        )
        stage.trainee.drop_unused(world)
        trained = [p for group in stage.optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = _number(nn.utils.clip_grad_norm_(trained, stage.plan.page.optimizer.clip))
        if why := self.watch.judge(float(losses[total > 0].sum()), norm):
            told = f"step {step.index} left out: {why}"
            self.progress.note({"step": step.index, "event": "skipped", "why": why, "norm": _finite(norm)}, told)
        else:
            stage.optimizer.step()
            if stage.words is not None:
                stage.words.write_to(self.model.words.weight)
            if self.average is not None and recipe.ema is not None:
                follow(self.average, self.model, recipe.ema)
            stage.balancer.update(losses, None if conflicts is None else conflicts.norms())
            stage.rebalance(step.index)
        self.stand.step, self.stand.tokens = step.index + 1, self.stand.tokens + int(count.tokens[:2].sum())
        seen, bad = world.sum(torch.tensor([step.rows, len(step.bad)])).tolist()
        self.quarantine.add(seen, bad, world.all(step.bad) if bad else [])
        self.progress.step(
            step.index,
            dict(zip(names, losses.tolist())),
            dict(zip(names, (count.rows / twice).int().tolist())),
            tokens=dict(zip(("source", "target", "padding"), count.tokens.int().tolist())),
            wait=seconds_waited,
            log=step.index % LOG_EVERY == 0 or self.stage_is_over,
            stage=stage.plan.page.name,
            weights=_by_name(names, stage.balancer.weights().tolist()),
            quotas=_by_name(names, stage.mixture.quotas(step.index)),
            norm=_finite(norm),
            lr=stage.optimizer.param_groups[0]["lr"],
            memory_mb=peak_memory(),
            **({} if self.critic is None else {"score": _finite(mean_score(parts))}),
        )
        if conflicts is not None and not stage.balancer.needs_norms:
            cosines = [[_finite(value) for value in row] for row in conflicts.cosines().tolist()]
            self.progress.note({"step": step.index, "conflicts": {"names": names, "cosine": cosines}})

    def _as_many_as_others(self, step: Step) -> list[Part]:
        """As many parts as the other processes have, which wait for each other: one once more, counting nothing."""
        missing = self.world.most(len(step.parts)) - len(step.parts)
        if not missing:
            return step.parts
        spare = step.parts[-1] if step.parts else step.spare
        if spare is None:
            raise InputError.at(
                self.folder, "data", "a process finds no good row", "mend the rows, or use fewer processes"
            )
        return step.parts + [spare.silent()] * missing

    def _with_own_answers(self, parts: list[Part]) -> list[Part]:
        """Answers of the model in place of the targets, if the loss is self-critical."""
        if self.critic is None:
            return parts
        self.stage.module.eval()
        trainee = self.stage.trainee
        with torch.no_grad(), trainee.autocast():
            return [self.critic(part, trainee.encode(part.batch)) for part in parts]

    def _conflicts(self, step: int) -> Conflicts | None:
        """What measures the data sets' gradients in this step; None in most. By the last shared layer if a balancer asks, in every step."""
        stage, every = self.stage, self.recipe.conflicts_every
        if not stage.balancer.needs_norms and (not every or step % every):
            return None
        layers = self.model.decoder_layers[-1] if stage.balancer.needs_norms else self.model
        learning = [parameter for parameter in layers.parameters() if parameter.requires_grad]
        return Conflicts(learning or self._trained(), len(stage.plan.names), seed=self.recipe.seed)

    def _trained(self) -> list[Tensor]:
        return [parameter for parameter in self.stage.trainee.parameters() if parameter.requires_grad]

    # --- between steps ---

    def do_what_is_due(self) -> None:
        """A look at held-out rows, going back, stopping, a checkpoint."""
        if self.look is not None and (self.stand.step % self.recipe.validate_every == 0 or self._ends_unseen()):
            self._look(self.look)
        if self.watch.gives_up:
            self._go_back()
        minutes = (time.monotonic() - self._last_save) / 60
        asked, due = bool(self.signals.asked), minutes > self.recipe.checkpoint_minutes and not self.watch.in_a_row
        if wanted := self.world.most(2 * asked + due):
            self.save()
            if wanted > 1:
                self._stop()

    def _ends_unseen(self) -> bool:
        """The stage is over, and its last weights may be its best."""
        plateau = self.stage.plan.page.plateau
        return plateau is not None and plateau.best and self.stage_is_over

    def _look(self, look: Look) -> None:
        line: dict[str, Any] = {"step": self.stand.step, "seconds": round(self.progress.seconds, 2)}
        with averaged(self.model, self.average):
            held_out = look.losses(self.stage.trainee)
            for name, loss in held_out.items():
                self.stand.lowest[name] = min(loss, self.stand.lowest.get(name, loss))
            regret = [loss - self.stand.lowest[name] for name, loss in held_out.items()]
            told = "held out: " + "  ".join(f"{name} {loss:.3f}" for name, loss in held_out.items())
            line |= {"held_out": _by_name(held_out, held_out.values()), "regret": _by_name(held_out, regret)}
            self.progress.note(line, told)
            self._keep_if_best(held_out)
            model = self._whole_model() if self.recipe.samples else None
            if model is not None:
                computed = precision(self.recipe, self.world.device)
                predictor = Predictor(model, self.tokenizer, search=SearchSettings(beam=1), precision=computed)
                self.progress.note({"step": self.stand.step, "samples": look.answers(self.stage.trainee, predictor)})
        self.stage.ending.look(held_out)

    def _keep_if_best(self, held_out: dict[str, float]) -> None:
        """What is trained, as it is now, on disk: the stage may end with it. A run that goes on finds it there."""
        plateau = self.stage.plan.page.plateau
        if plateau is None or not plateau.best or not self.world.is_first:
            return
        mean = sum(held_out[name] for name in plateau.scores) / len(plateau.scores)
        best = checkpoint.read_best(self.folder, self.stand.stage)
        if math.isfinite(mean) and (best is None or mean < best[0]):
            checkpoint.write_best(self.folder, self.stand.stage, mean, trained_tensors(self.model))

    def _take_best(self) -> None:
        """The stage is over: its best weights, if it kept any."""
        plateau = self.stage.plan.page.plateau
        self.world.wait()
        best = checkpoint.read_best(self.folder, self.stand.stage) if plateau is not None and plateau.best else None
        if best is None:
            return
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if name in best[1]:
                    parameter.copy_(best[1][name])
                    if self.average is not None:
                        self.average[name].copy_(best[1][name])

    def _go_back(self) -> None:
        """To the last good weights; the rows that went wrong are not seen again."""
        last, self.watch.returns = checkpoint.last_checkpoint(self.folder / "checkpoint"), self.watch.returns + 1
        if last is None or self.watch.returns > self.recipe.guard.returns:
            wrong = f"{self.watch.in_a_row} steps in a row went wrong, after going back {self.watch.returns - 1} times"
            raise InputError.at(
                self.folder,
                "training",
                wrong,
                "lower optimizer.lr, or look at the rows; metrics.jsonl says why each was left out",
            )
        why = f"{self.watch.in_a_row} steps in a row were left out"
        self._load(last)
        self.watch.in_a_row = 0
        to = checkpoint.read_run(last)["step"]
        line = {"step": self.stand.step, "event": "back", "to": to, "why": why}
        self.progress.note(line, f"{why}: back to the weights of step {to}, on with other rows")

    def _stop_in_time(self) -> None:
        """Leave a step that is under way, if asked to stop: weights are as the last step left them."""
        if self.signals.asked and self.world.size == 1:
            self.save()
            self._stop()

    def _stop(self) -> None:
        where = f"{self.folder} at step {self.stand.step}"
        raise Stopped(f"stopped by {self.signals.asked or 'another process'}; {where} is saved, --resume goes on")

    # --- stages ---

    def next_stage(self) -> None:
        """A stage is over: the next begins where it stands, or the run is done."""
        self._take_best()
        self.stand.places |= dict(zip(self.stage.plan.names, self.stage.mixture.places(self.stand.step)))
        self.stand.stage, self.stand.first, self.stand.tokens = self.stand.stage + 1, self.stand.step, 0
        if not self.is_done:
            self._close_cache()
            if self._in_shares and (model := self._put_together(keep=True)) is not None:
                self.model = model
            self._change_model(self.stand.stage)
            self.watch.begin_stage()
            self._begin_stage()
            self._tell_stage()
        self.save()

    def _change_model(self, index: int) -> None:
        """The page's own changes are made at the start; each stage adds its own."""
        page = self.plans[index].page
        if page is not self.recipe and page.model_changes:
            self.model = changed_model(self.model, page.model_changes, seed=self.recipe.seed)

    def _begin_stage(self) -> None:
        recipe, stand = self.recipe, self.stand
        plan = self.plans[min(stand.stage, len(self.plans) - 1)]
        freeze(
            self.model,
            plan.page.freeze,
            plan.page.train_only,
            changes=recipe.lora is not None or not plan.page.train_only,
        )
        cache = kept_features(recipe, self.model)
        in_bfloat16 = precision(recipe, self.world.device) == "bfloat16"
        self.stage = StageRun(
            recipe, plan, self.model, self.tokenizer, self.world, cache=cache, in_bfloat16=in_bfloat16, stand=stand
        )
        if recipe.ema:
            before = {name: whole(tensor) for name, tensor in (self.average or {}).items()}
            self.average = {
                name: shared_like(before[name], now) if name in before else now.clone()
                for name, now in weights_of(self.model).items()
            }
        self.critic = None
        if recipe.loss.kind == "self_critical":
            self.critic = Critic(self.model, self.tokenizer, samples(plan.data), recipe.loss)
        self.look = Look(recipe, self.stage.reader) if recipe.validation and recipe.validate_every else None

    def _tell_stage(self) -> None:
        plan = self.stage.plan
        self.progress.stage(self.stand.step, self.stage.end, plan.page.name, plan.index, facts_of(plan))

    def _close_cache(self) -> None:
        if self.stage.trainee.cache is not None:
            self.stage.trainee.cache.close()

    # --- what is kept ---

    def save(self) -> None:
        """A checkpoint of where the run stands. InputError if it cannot be written; the one before is untouched."""
        state = {
            "recipe": self.recipe.model_dump(mode="json"),
            "files": self.files,
            "stand": asdict(self.stand),
            "progress": self.progress.state(),
            "quarantine": self.quarantine.state(),
            "watch": self.watch.state(),
            "stage": self.stage.state(),
        }
        tensors = checkpoint.tensors_of(self.stage.trainee, self.stage.optimizer, self.average)
        checkpoint.save(self.folder / "checkpoint", self.stand.step, tensors, state, self.world)
        self._last_save = time.monotonic()

    def _load(self, folder: Path) -> None:
        checkpoint.load(folder, self.stage.trainee, self.stage.optimizer, self.average, self.world)

    def finish(self) -> Path:
        """Write the model folder and the report."""
        folder = self.folder / "model"
        with averaged(self.model, self.average):
            if (model := self._whole_model()) is not None:
                if self.recipe.adapter:
                    self._save_adapter(folder, model)
                else:
                    fold_lora(model)
                    save_model(
                        folder,
                        model,
                        self.tokenizer,
                        dtype=torch.bfloat16,
                        int8=self.recipe.int8,
                        unchanged=unchanged(self.recipe, model),
                        card=self._card(),
                        lineage=self._lineage(),
                    )
        self.progress.note({"event": "end", "step": self.stand.step, "seconds": round(self.progress.seconds, 2)})
        if self.world.is_first:
            try:
                self.progress.say(f"report: {write_run_report(self.folder)}")
            except Exception as error:  # an extra that is missing, or a fault of ours: the run is whole without it
                self.progress.say(f"no report.html: {error}")
        self.world.wait()
        return folder

    def _save_adapter(self, folder: Path, model: UnifiedModel) -> None:
        """What differs from the base: what was trained, and what an adapter that the run began with had changed."""
        start, lora = model_folder(self.recipe.start), self.recipe.lora
        tensors = trained_tensors(model)
        if is_adapter(start):
            before = read_adapter(start)
            base = base_of(base_folder(before), before.settings.base, folder)
            lora = lora or before.settings.lora
            now = dict(model.named_parameters())
            tensors |= {name: now[name].detach() for name in before.changes}
        else:
            base = base_of(start, None, folder)
        method = "lora" if lora is not None else "connector"
        settings = AdapterSettings(base=base, method=method, lora=lora)
        save_adapter(folder, settings, tensors, card=self._card(), lineage=self._lineage())

    def _whole_model(self) -> UnifiedModel | None:
        """The model, put together if each process holds a share; None in the other processes."""
        if not self._in_shares:
            return self.model if self.world.is_first else None
        return self._put_together(keep=self.world.is_first)

    @property
    def _in_shares(self) -> bool:
        return self.world.size > 1 and self.recipe.parallel == "fsdp"

    def _put_together(self, *, keep: bool) -> UnifiedModel | None:
        """The whole model out of its shares; all processes take part, those that `keep` it have it."""
        weights = {}
        for name, share in self.model.state_dict().items():
            tensor = whole(share)
            if keep:
                weights[name] = tensor
        if not keep:
            return None
        model = UnifiedModel(self.model.config)
        model.load_state_dict(weights)
        return model.eval()

    def _lineage(self) -> dict[str, Any]:
        run = {"steps": self.stand.step, "seconds": round(self.progress.seconds), "processes": self.world.size}
        return (
            self.lineage
            | {"recipe": as_page(self.recipe), "data": self.files, "run": run, "held_out": self.stand.lowest}
            | {
                "monoglot": __version__,
                "torch": torch.__version__,
            }
        )

    def _card(self) -> str:
        millions = sum(p.numel() for p in self.model.parameters()) / 1e6
        sources = "\n".join(
            f"- {plan.page.name}: "
            + ", ".join(f"{name} ({quota:.3g} rows a step)" for name, quota in zip(plan.names, plan.quotas))
            for plan in self.plans
        )
        return f"# {self.recipe.name}\n\nA monoglot model of {millions:.1f} M parameters, trained for {self.stand.step} steps on\n\n{sources}\n"

    def _machine(self) -> dict[str, Any]:
        facts = {"processor": processor_name(), "threads": torch.get_num_threads(), "processes": self.world.size}
        if self.world.device.type == "cuda":
            facts["processor"] = torch.cuda.get_device_name(self.world.device)
        return facts | {"torch": torch.__version__}

    def _check_unchanged(self, saved: dict[str, Any]) -> None:
        """Raises InputError if the run began with another recipe, or its data are others now."""
        begun = Recipe.model_validate(saved["recipe"]).model_dump(
            mode="json"
        )  # fields that came later have their defaults
        now = self.recipe.model_dump(mode="json")
        if differ := [key for key in now if begun[key] != now[key] and key not in _FREE]:
            wrong = f"changed since the run began: {', '.join(differ)}"
            raise InputError.at(self.folder, "recipe", wrong, "use the run's own recipe.yaml, or a new folder")
        for plan in self.plans:
            for rows in plan.data:
                if saved["files"][rows.source.name] != self.files[rows.source.name]:
                    wrong = f"the rows of {rows.source.name!r} changed since the run began"
                    raise InputError.at(
                        rows.file.path, "data", wrong, "bring them back, or start the run again in a new folder"
                    )


def precision(recipe: Recipe, device: torch.device) -> str:
    """What matrix products are computed in; bfloat16 is slower than float32 where there are no instructions for it."""
    if recipe.precision != "auto":
        return recipe.precision
    return pick("auto", device)[0]


def processor_name() -> str:
    """The processor's name, for reports."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _check_folder(folder: Path, resume: bool) -> None:
    filled = folder.exists() and any(folder.iterdir())
    if filled and not resume:
        raise InputError.at(folder, "run", "the folder is not empty", "give a new one, or --resume to go on")
    if filled and not (folder / "recipe.yaml").exists():
        raise InputError.at(
            folder, "run", "has no recipe.yaml, so no run to go on with", "give a new folder, or the run's"
        )


def kept_features(recipe: Recipe, model: UnifiedModel) -> FeatureCache | None:
    """None when the encoders are trained or the cache is turned off."""
    if any(p.requires_grad for p in model.encoders.parameters()):
        return None
    return open_cache(model, recipe.feature_cache.gigabytes, recipe.feature_cache.folder)


def peak_memory() -> int:
    """Megabytes that this process held at most."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(most / (1 << 20 if sys.platform == "darwin" else 1 << 10))


def _number(norm: Tensor) -> float:
    """A norm that may be spread over processes."""
    return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 6)


def _by_name(names: Iterable[str], values: Iterable[float]) -> dict[str, float | None]:
    return {name: _finite(value) for name, value in zip(names, values)}
