"""Schema of pneumo's settings: the keys of each group and the constraint on each value."""

from pneumo.common.input_format import ASPECTS, HISTOGRAMS
from pneumo.config.constraints import (
    FLAG,
    PATH,
    SEED,
    SWITCH,
    Keys,
    Rule,
    forbidden,
    integer,
    is_class_folder,
    is_integer,
    is_number,
    is_plain_name,
    is_text,
    number,
    one_of,
    optional,
    or_null,
    text,
)

_NAME = Rule(
    lambda value: is_text(value) and len(value) <= 100 and not {"", ".", ".."} & {*value.split("/")},
    "a short folder name, as set by GROUP=NAME, such as {key}=mine",
)
TABLE_COLUMNS = ("file", "label", "patient", "site", "split")
PRESET_NAMES = ("nih", "rsna", "chexpert", "vindr")  # equal to `pneumo.data.table_presets.PRESETS`, which tests check
_WORKERS, _PHANTOMS, _VIEWS, _PIXELS, _BATCH = 1024, 100_000, 1000, 4096, 1_000_000  # upper limits, for memory
TOP_LEVEL: Keys = {
    "seed": SEED,
    "epochs": integer(20, 1),
    "ckpt_path": or_null(text("a checkpoint's path, such as ckpt_path=RUN/checkpoints/last.ckpt"), "a new run"),
    "figures": FLAG,
    "compile": FLAG,
    "robust_epochs": optional(integer(5, 1)),
    "notes": optional(text("a text to store with the run, such as notes=first")),
}
GROUPS: dict[str, Keys] = {
    "features": {
        "cache": SWITCH,
        "views": integer(4, 1, _VIEWS, "a number of augmented views"),
        "compile": SWITCH,
        "batch_size": or_null(integer(64, 1, _BATCH, "a number of images"), "one that fits the device"),
    },
    "loss": {"label_smoothing": number(0.1, 0, 0.9, noun="a fraction"), "balance": FLAG},
    "fine_tuning": {"warm_up": FLAG, "lr_decay": number(0.5, 0, 1, above=True)},
    "decision": {
        "flip": FLAG,
        "temperature": FLAG,
        "threshold": one_of(
            *("fixed", "youden", "accuracy", "sensitivity"),
            rule="fixed, youden, accuracy or sensitivity; to set a probability, use model.threshold=0.3",
        ),
        "sensitivity": number(0.95, 0, 1, above=True, noun="a fraction"),
        "uncertain": number(0.1, 0, 1, noun="a fraction"),
    },
    "model": {
        "architecture": text("SOURCE/NAME, such as model.architecture=timm/convnext_tiny"),
        "weights": or_null(text("DEFAULT, a tag, pip:PACKAGE, a file's path"), "random weights"),
        "freeze": FLAG,
        "head_path": or_null(text("the path of a layer, such as model.head_path=fc"), "the last one"),
        "lung_crop": optional(or_null(integer(192, 1, _PIXELS, "a whole number of pixels"), "the whole image")),
        "threshold": number(0.5, 0, 1, noun="a probability"),
    },
    "paths": {
        "output_dir": Rule(
            lambda value: is_text(value) or is_integer(value),
            "a path that is not empty; quote a path that looks like a list, as in 'paths.output_dir=\"[old]\"'",
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
            and len({str(name) for name in value}) == len(value) >= 2
            and all(map(is_class_folder, value))
        ),
        "the different names of two or more folders in UTF-8, of two the positive one last, such as "
        "data.classes=[NORMAL,PNEUMONIA]",
    ),
    "task": one_of("pneumonia", "subtype"),
    "split": text("official, patient, kfold or, with a table, site"),  # validated by `pneumo.data.splits.check_split`
    "val_fraction": number(0.1, 0, 0.5, above=True, noun="a fraction"),
    "folds": integer(5, 2, noun="a number of folds"),
    "fold": integer(0, 0),
    "image_size": integer(224, 1, _PIXELS, "a whole number of pixels"),
    "crop_pct": number(0.875, 0.5, 1, noun="a fraction"),
    "aspect": optional(one_of(*ASPECTS)),
    "histogram": optional(one_of(*HISTOGRAMS)),
    "batch_size": integer(32, 1, _BATCH),
    "num_workers": or_null(integer(2, 0, _WORKERS), "one per CPU core"),
    "seed": SEED,
    "cache": FLAG,
    "cache_dir": PATH,
}
TABLE: Keys = {  # of data=table only
    "table": or_null(text("the path of a CSV file, such as data.table=labels.csv"), "none, which is an error"),
    "preset": or_null(
        one_of(*PRESET_NAMES)._replace(holds=lambda value: is_text(value) and value.casefold() in PRESET_NAMES),
        "columns with the standard names",
    ),
    "columns": Rule(
        lambda value: (
            isinstance(value, dict)
            and value.keys() <= {*TABLE_COLUMNS}
            and all(name is None or is_text(name) for name in value.values())
        ),
        f"the names of the columns {', '.join(TABLE_COLUMNS)}, such as 'data.columns.file=\"Image Index\"'; other "
        "columns are kept without a setting",
    ),
    "mapping": or_null(
        Rule(
            lambda value: (
                isinstance(value, dict) and all(name is None or is_class_folder(name) for name in value.values())
            ),
            "the class of each label, or null to leave its images out, such as "
            "'data.mapping={No Finding: NORMAL, Unclear: null}'",
        ),
        "labels that are classes",
    ),
    "site": or_null(
        Rule(lambda value: is_text(value) or is_number(value), "the name of a site in the table, such as {key}=A"),
        "none",
    ),
    "test_fraction": number(0.2, 0, 0.5, above=True, noun="a fraction"),
}
DATA_REQUIRED = ("image_size", "batch_size", "task", "split")  # in every data module, since runs record them
_PHANTOM_KEYS: Keys = {
    **{name: integer(800, 2, _PHANTOMS, "a number of phantoms") for name in ("train", "val", "test")},
    "phantom_seed": SEED,
}
_FRACTIONS = ("shift", "zoom", "stretch", "crop", "brightness", "contrast", "resample", "noise", "border")
_OPTIONAL = (
    "blur",
    "resample",
    "jpeg",
    "crop",
    "share",
    "stretch",
    "noise",
    "gamma",
    "border",
)  # parameters of `Augmentation` with a default
_AUGMENT: Keys = {
    "rotation": number(5, 0, 180, noun="degrees"),
    "flip": number(0.5, 0, 1, noun="a probability"),
    **{name: number(0.1, 0, 0.9, noun="a fraction") for name in _FRACTIONS},
    "blur": number(1, 0, 4, noun="pixels"),
    "gamma": number(0.5, 0, 4),
    "jpeg": integer(40, 0, 100, "the lowest quality (0: no compression)"),
    "share": number(0.5, 0, 1, above=True, noun="a fraction"),
}
_CHECKPOINT: Keys = {
    "dirpath": PATH,
    "filename": Rule(is_plain_name, "a file name without extension, of letters, digits and _+=.-, such as best"),
    # The training metrics in results.json exist only at the end of an epoch, where runs also resume.
    "save_on_train_epoch_end": one_of(True),
    "enable_version_counter": one_of(False),
    "monitor": optional(or_null(text("a metric, such as val/loss"), "the last epoch")),
    "mode": optional(or_null(one_of("min", "max"), "the metric's own")),
    "auto_insert_metric_name": optional(FLAG),
    "verbose": optional(FLAG),
    "every_n_epochs": optional(or_null(integer(1, 1), "every epoch")),
    "every_n_train_steps": optional(or_null(integer(100, 1), "none")),
}
_TRACKER: Keys = {
    "run_dir": PATH,
    "project": text("a text that groups runs, such as {key}=pneumo"),
    "run_name": text("a text, such as {key}=first"),
}
# Stable name of a `_target_` -> all its keys
TARGETS: dict[str, Keys] = {
    "pneumo.data.datamodule.ChestXrayDataModule": DATA,
    "pneumo.data.synthetic.SyntheticDataModule": {**DATA, "root": PATH, **_PHANTOM_KEYS},
    "pneumo.data.table_datamodule.TableDataModule": {**DATA, "root": optional(DATA["root"]), **TABLE},
    "pneumo.data.augmentation.Augmentation": {
        name: optional(rule) if name in _OPTIONAL else rule for name, rule in _AUGMENT.items()
    },
    "pneumo.models.fine_tuning.OneCycle": {"warm_up": number(0.15, 0.001, 0.999, noun="a fraction of the steps")},
    "pneumo.checkpoints.RunCheckpoint": _CHECKPOINT,
    "pneumo.callbacks.AveragedWeights": {"decay": number(0.997, 0, 1)},
    "pneumo.callbacks.SeedEveryEpoch": {"seed": SEED},
    "pneumo.callbacks.StopOnNonFiniteLoss": {},
    "pneumo.callbacks.LogLearningRate": {},
    "pneumo.callbacks.EpochLog": {},
    "pneumo.callbacks.make_progress_bar": {},
    "pneumo.tensorboard.RunLogger": {"save_dir": PATH, "projector": optional(FLAG)},
    "pneumo.training.csv_logger.CSVRunLogger": {"save_dir": PATH},
    "pneumo.training.mlflow_logger.MLFlowRunLogger": {
        **_TRACKER,
        "tracking_uri": text("the address of a server or a database, such as {key}=http://localhost:5000"),
        "artifact_location": optional(or_null(PATH, "the default")),
    },
    "pneumo.training.wandb_logger.WandbRunLogger": {
        **_TRACKER,
        "save_dir": PATH,
        "mode": optional(one_of("offline", "online")),
    },
}
HYDRA_KEYS: Keys = {  # Hydra's own keys of a node with a `_target_`
    "_target_": text("the full path of a class, such as torch.optim.SGD"),
    "_partial_": FLAG,
    "_recursive_": FLAG,
    "_convert_": one_of("none", "partial", "object", "all"),
    "_args_": forbidden("left out: set each argument by its name"),
}
SWEEP: dict[str, Keys] = {
    "sweep": {
        "name": Rule(
            lambda value: value is not None and is_plain_name(str(value), spaces=True),
            "a folder name of letters, digits and _+=.-, such as sweep.name=rates",
        ),
        "overwrite": FLAG,
        "fail_fast": FLAG,
        "trials": or_null(integer(20, 1), "all combinations of values"),
        "at_once": integer(4, 1),
        "objective": one_of("val_loss", "val_accuracy", "val_auroc"),
        "storage": or_null(text("a database URL, such as sqlite:////data/optuna.db"), "a file in the sweep's folder"),
    },
    "launcher": {
        "parallel": FLAG,
        "threads": or_null(integer(2, 1), "the launcher's default"),
        "jobs": optional(or_null(integer(2, 1), "no limit")),
        "cpus": optional(or_null(integer(4, 1), "the launcher's default")),
        "gpus": optional(or_null(number(1, 0), "none")),
        "memory": optional(or_null(number(16, 0, above=True, noun="GB"), "the cluster's default")),
        "minutes": optional(integer(240, 1)),
        "retries": optional(integer(5, 0)),
        **{
            name: optional(or_null(text("a text, such as {key}=NAME"), "the default"))
            for name in ("address", "partition", "account")
        },
    },
}
