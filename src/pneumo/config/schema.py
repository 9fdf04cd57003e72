"""The schema of pneumo's settings: the keys of each group, and the constraint on each value."""

from pneumo.config.constraints import (
    FLAG,
    PATH,
    SEED,
    SWITCH,
    Keys,
    Rule,
    addable,
    is_class_folder,
    is_plain_name,
    is_text,
    is_whole,
    never,
    number,
    one_of,
    or_null,
    text,
    whole,
)

_NAME = Rule(
    lambda value: is_text(value) and len(value) <= 100 and not {"", ".", ".."} & {*value.split("/")},
    "a short name of a folder, as GROUP=NAME sets it, such as {key}=mine",
)
_WORKERS, _PHANTOMS, _VIEWS, _PIXELS, _BATCH = 1024, 100_000, 1000, 4096, 1_000_000  # more would only fill the memory
TOP: Keys = {
    "seed": SEED,
    "epochs": whole(20, 1),
    "ckpt_path": or_null(text("a checkpoint's path, such as ckpt_path=RUN/checkpoints/last.ckpt"), "a new run"),
    "figures": FLAG,
    "compile": FLAG,
    "robust_epochs": addable(whole(5, 1)),
    "notes": addable(text("a text of yours, which is kept with the run, such as notes=first")),
}
GROUPS: dict[str, Keys] = {
    "features": {
        "cache": SWITCH,
        "views": whole(4, 1, _VIEWS, "a number of augmented views"),
        "compile": SWITCH,
        "batch_size": or_null(whole(64, 1, _BATCH, "a number of images"), "one that fits the device"),
    },
    "loss": {"label_smoothing": number(0.1, 0, 0.9, noun="a share"), "balance": FLAG},
    "fine_tuning": {"warm_up": FLAG, "lr_decay": number(0.5, 0, 1, above=True)},
    "decision": {
        "flip": FLAG,
        "temperature": FLAG,
        "threshold": one_of(
            *("fixed", "youden", "accuracy", "sensitivity"),
            rule="fixed, youden, accuracy or sensitivity; a probability is model.threshold=0.3",
        ),
        "sensitivity": number(0.95, 0, 1, above=True, noun="a share"),
        "uncertain": number(0.1, 0, 1, noun="a share"),
    },
    "model": {
        "architecture": text("SOURCE/NAME, such as model.architecture=timm/convnext_tiny"),
        "weights": or_null(text("DEFAULT, a tag, pip:PACKAGE, a file's path"), "random weights"),
        "freeze": FLAG,
        "head_path": or_null(text("the path of a layer, such as model.head_path=fc"), "the last one"),
        "threshold": number(0.5, 0, 1, noun="a probability"),
    },
    "paths": {
        "output_dir": Rule(
            lambda value: is_text(value) or is_whole(value),
            "a path that is not empty; one that reads as a list is quoted, as in 'paths.output_dir=\"[old]\"'",
        ),
        "cache_dir": PATH,
        "fresh_dir": PATH,
        "run_dir": PATH,
    },
    "choices": {"model": _NAME, "optimizer": _NAME, "experiment": _NAME, "data": _NAME},
}
DATA: Keys = {
    "root": or_null(PATH, "the default"),
    "classes": Rule(
        lambda value: (
            isinstance(value, list)
            and len({str(name) for name in value}) == len(value) == 2
            and all(map(is_class_folder, value))
        ),
        "the names of two folders in UTF-8, the positive class last, such as data.classes=[NORMAL,PNEUMONIA]",
    ),
    "task": one_of("pneumonia", "subtype"),
    "split": text("official, patient or kfold"),  # each with its meaning in `pneumo.data.splits.check_split`
    "val_fraction": number(0.1, 0, 0.5, above=True, noun="a share"),
    "folds": whole(5, 2, noun="a number of parts"),
    "fold": whole(0, 0),
    "image_size": whole(224, 1, _PIXELS, "a whole number of pixels"),
    "crop_pct": number(0.875, 0.5, 1, noun="a share"),
    "batch_size": whole(32, 1, _BATCH),
    "num_workers": or_null(whole(2, 0, _WORKERS), "one per CPU core"),
    "seed": SEED,
    "cache": FLAG,
    "cache_dir": PATH,
}
READ = ("image_size", "batch_size", "task", "split")  # of any data module's settings, by the record of a run
_PHANTOM_KEYS: Keys = {
    **{name: whole(800, 2, _PHANTOMS, "a number of phantoms") for name in ("train", "val", "test")},
    "phantom_seed": SEED,
}
_SHARES = ("shift", "zoom", "stretch", "crop", "brightness", "contrast", "resample")
_NEW = ("blur", "resample", "jpeg", "crop", "share", "stretch")  # arguments with a default
_AUGMENT: Keys = {
    "rotation": number(5, 0, 180, noun="degrees"),
    "flip": number(0.5, 0, 1, noun="a probability"),
    **{name: number(0.1, 0, 0.9, noun="a share") for name in _SHARES},
    "blur": number(1, 0, 4, noun="pixels"),
    "jpeg": whole(40, 0, 100, "the lowest quality, 0 for none,"),
    "share": number(0.5, 0, 1, above=True, noun="a share"),
}
_CHECKPOINT: Keys = {
    "dirpath": PATH,
    "filename": Rule(is_plain_name, "a file's name without its ending, of letters, digits and _+=.-, such as best"),
    # An epoch's training metrics, which results.json has, are known at its end; earlier, nothing could be resumed.
    "save_on_train_epoch_end": one_of(True),
    "enable_version_counter": one_of(False),
    "monitor": addable(or_null(text("a metric, such as val/loss"), "the last epoch")),
    "mode": addable(or_null(one_of("min", "max"), "the metric's own")),
    "auto_insert_metric_name": addable(FLAG),
    "verbose": addable(FLAG),
    "every_n_epochs": addable(or_null(whole(1, 1), "each")),
    "every_n_train_steps": addable(or_null(whole(100, 1), "none")),
}
# By the stable name of a `_target_`: these keys and no others.
TARGETS: dict[str, Keys] = {
    "pneumo.data.datamodule.ChestXrayDataModule": DATA,
    "pneumo.data.synthetic.SyntheticDataModule": {**DATA, "root": PATH, **_PHANTOM_KEYS},
    "pneumo.data.augmentation.Augmentation": {
        name: addable(rule) if name in _NEW else rule for name, rule in _AUGMENT.items()
    },
    "pneumo.models.fine_tuning.OneCycle": {"warm_up": number(0.15, 0.001, 0.999, noun="a share of the steps")},
    "pneumo.checkpoints.RunCheckpoint": _CHECKPOINT,
    "pneumo.callbacks.AveragedWeights": {"decay": number(0.997, 0, 1)},
    "pneumo.callbacks.SeedEveryEpoch": {"seed": SEED},
    "pneumo.callbacks.StopOnNonFiniteLoss": {},
    "pneumo.callbacks.LogLearningRate": {},
    "pneumo.callbacks.EpochLog": {},
    "pneumo.callbacks.make_progress_bar": {},
    "pneumo.tensorboard.RunLogger": {"save_dir": PATH, "projector": addable(FLAG)},
}
SPECIAL: Keys = {  # Hydra's own keys next to a `_target_`
    "_target_": text("a class by its whole name, such as torch.optim.SGD"),
    "_partial_": FLAG,
    "_recursive_": FLAG,
    "_convert_": one_of("none", "partial", "object", "all"),
    "_args_": never("left out: name each argument"),
}
SWEEP: dict[str, Keys] = {
    "sweep": {
        "name": Rule(
            lambda value: value is not None and is_plain_name(str(value), spaces=True),
            "a folder's name of letters, digits and _+=.-, such as sweep.name=rates",
        ),
        "overwrite": FLAG,
        "fail_fast": FLAG,
        "trials": or_null(whole(20, 1), "all combinations of values"),
        "at_once": whole(4, 1),
        "objective": one_of("val_loss", "val_accuracy", "val_auroc"),
        "storage": or_null(text("a database's URL, such as sqlite:////data/optuna.db"), "a file in the sweep's folder"),
    },
    "launcher": {
        "parallel": FLAG,
        "threads": or_null(whole(2, 1), "as many as the launcher gives"),
        "jobs": addable(or_null(whole(2, 1), "no limit")),
        "cpus": addable(or_null(whole(4, 1), "the launcher's default")),
        "gpus": addable(or_null(number(1, 0), "none")),
        "memory": addable(or_null(number(16, 0, above=True, noun="GB"), "the cluster's default")),
        "minutes": addable(whole(240, 1)),
        "retries": addable(whole(5, 0)),
        **{
            name: addable(or_null(text("a text, such as {key}=NAME"), "the default"))
            for name in ("address", "partition", "account")
        },
    },
}
