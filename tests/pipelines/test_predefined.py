"""Predefined jobs of images fit the images they are for."""

import pytest
import torch

from core.images.image_diffusion import ImageDiffusion
from factory.consistency import SIDES
from factory.job import ImageTrainingJob
from pipelines.jobs import job_names, load_job

JOBS = [job for job in map(load_job, job_names()) if isinstance(job, ImageTrainingJob)]


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.job)
def test_the_network_of_a_job_learns_from_images_of_its_size(job: ImageTrainingJob) -> None:
    side = job.data.resolution or SIDES[job.data.source]
    shape = (side, side, 3) if job.data.channels == 3 else (side, side)
    diffusion = ImageDiffusion(job.model.network, shape, 10 if job.model.conditional else 0, config=job.model)
    images = torch.randint(0, 256, (2, *shape), dtype=torch.uint8)
    diffusion.loss(images, torch.tensor([0, 1]) if job.model.conditional else None).mean().backward()
    assert all(parameter.grad is not None for parameter in diffusion.network.parameters())
    assert sum(parameter.numel() for parameter in diffusion.network.parameters()) < 10_000_000
