"""A pipeline of four small steps, with a custom-job step, a retry and a branch: what the servers are tested with."""

from pathlib import Path

from google_cloud_pipeline_components.v1.custom_job import create_custom_training_job_from_component
from kfp import compiler, dsl

IMAGE = "python:3.11"


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def prepare(count: int, dataset: dsl.Output[dsl.Dataset]):
    """Writes `count` letters, which fails for a count that is not an integer."""
    with open(dataset.path, "w") as file:
        file.write("x" * count)
    dataset.metadata["count"] = count


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train(config: dict, dataset: dsl.Input[dsl.Dataset], model: dsl.Output[dsl.Model]):
    """Makes a model folder; `config` may ask for a failure, for words in the log or for time."""
    import os
    import time

    print("training on", os.path.getsize(dataset.path), "letters")
    if config.get("fail"):
        raise ValueError("loss is not a number")
    time.sleep(config.get("seconds", 0))
    os.makedirs(model.path, exist_ok=True)  # a retried step finds what the attempt before it left
    with open(os.path.join(model.path, "weights"), "w") as file:
        file.write("w" * int(config.get("size", 1)))
    model.metadata["size"] = config.get("size", 1)
    model.metadata["parent"] = dataset.uri


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def decide(model: dsl.Input[dsl.Model], wanted: int) -> str:
    """`promote` for a model of the wanted size."""
    import os

    size = os.path.getsize(os.path.join(model.path, "weights"))
    return "promote" if size >= wanted else "keep"


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def note(text: str):
    """Prints."""
    print("noted:", text)


train_job = create_custom_training_job_from_component(
    train,
    display_name="train",
    machine_type="g2-standard-8",
    accelerator_type="NVIDIA_L4",
    accelerator_count=1,
    strategy="SPOT",
    restart_job_on_worker_restart=True,
)


def compiled(path: Path, *, custom_job: bool = True, retries: int = 0) -> Path:
    """Compiles the pipeline to `path`."""

    @dsl.pipeline(name="tiny")
    def tiny(config: dict, count: int = 3, wanted: int = 1):
        data = prepare(count=count)
        trained = (train_job if custom_job else train)(config=config, dataset=data.outputs["dataset"])
        if retries:
            trained.set_retry(retries, backoff_duration="0s")
        decision = decide(model=trained.outputs["model"], wanted=wanted)
        with dsl.If(decision.output == "promote"):
            note(text="promoted").set_display_name("register")
        with dsl.Else():
            note(text="kept")

    compiler.Compiler().compile(tiny, str(path))
    return path
