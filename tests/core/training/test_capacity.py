import resource
import subprocess
import sys
from pathlib import Path

import pytest

from core.errors import UserError
from core.images.config import ImageModel
from core.images.model import ImageShape, build_network
from core.text.config import TextModel
from core.text.objective import OBJECTIVES, build

HUGE_TEXT = TextModel.model_validate({"transformer": {"width": 8192, "depth": 96, "heads": 64}})
HUGE_IMAGES = ImageModel.model_validate({"network": {"channels": [2048] * 3, "blocks": [16] * 3}})


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_text_model_beyond_this_machine_is_refused_before_memory_is_taken(objective: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=r"model: asks for [\d,]{14,} parameters, .* make the network smaller"):
        build(objective, 65_536, HUGE_TEXT)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB; the weights are 300 GB


def test_an_image_model_beyond_this_machine_is_refused_before_memory_is_taken() -> None:
    shape = ImageShape(channels=1, height=32, width=32, class_names=("a",))
    with pytest.raises(UserError, match=r"model\.network: asks for"):
        build_network(HUGE_IMAGES, shape)


def test_counting_first_leaves_the_fresh_weights_as_they_were() -> None:
    code = (
        "import torch; from core.text.config import TextModel; from core.text.objective import build\n"
        "import core.text.objective as o\n"
        "def of(wrap):\n"
        "    o.build_within_memory = wrap; torch.manual_seed(3)\n"
        "    return [p.sum().item() for p in build('diffusion', 50, TextModel()).parameters()]\n"
        "assert of(o.build_within_memory) == of(lambda make, where: make())"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], check=True)


def test_neither_counting_nor_a_step_of_training_imports_torchs_compiler() -> None:
    code = (
        "import sys\n"
        "from core.images.config import ImageModel\n"
        "from core.images.model import ImageShape, build_network\n"
        "from core.text.config import TextModel\n"
        "from core.text.objective import OBJECTIVES, build\n"
        "shape = ImageShape(channels=1, height=8, width=8, class_names=('a', 'b'))\n"
        "build_network(ImageModel.model_validate({'network': {'channels': [8, 16], 'blocks': [0, 1]}}), shape)\n"
        "[build(objective, 50, TextModel()) for objective in OBJECTIVES]\n"
        "import torch\n"
        "from core.config import TrainConfig\n"
        "from core.training.optimizers import Optimizers, ParameterGroup\n"
        "matrix, bias = (torch.nn.Parameter(torch.ones(2, n)) for n in (3, 1))\n"
        "both = Optimizers([ParameterGroup([matrix], matrices=True), ParameterGroup([bias])],\n"
        "                  TrainConfig(examples=1, optimizer='muon'), torch.device('cpu'))\n"
        "(matrix @ matrix.T + bias).sum().backward()\n"
        "both.step(torch.tensor(False)); both.zero_grad(); both.load_state_dict(both.state_dict())\n"
        "assert sorted(both.parts) == ['adamw', 'muon'] and matrix[0, 0] != 1 != bias[0, 0]\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], check=True)
