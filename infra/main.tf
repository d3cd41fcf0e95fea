# What docs/vertex-setup.md makes by hand, with the same rights and no more. The tables below are compared with the page
# by tests/docs/test_infra.py.
locals {
  services = [
    "serviceusage.googleapis.com",
    "cloudresourcemanager.googleapis.com",
    "aiplatform.googleapis.com",
    "compute.googleapis.com",
    "storage.googleapis.com",
    "artifactregistry.googleapis.com",
    "cloudbuild.googleapis.com",
    "logging.googleapis.com",
    "iam.googleapis.com",
    "iamcredentials.googleapis.com",
    "sts.googleapis.com",
    "cloudquotas.googleapis.com",
  ]

  # who -> roles on the project
  project_roles = {
    pipelines = ["roles/aiplatform.user", "roles/logging.logWriter"]
    build     = ["roles/logging.logWriter"]
    people    = ["roles/aiplatform.user", "roles/logging.viewer", "roles/serviceusage.serviceUsageConsumer", "roles/cloudbuild.builds.editor", "roles/cloudquotas.viewer"]
    ci        = ["roles/aiplatform.user", "roles/serviceusage.serviceUsageConsumer", "roles/cloudbuild.builds.editor"]
  }

  # who -> roles on the bucket
  bucket_roles = {
    pipelines = ["roles/storage.objectUser"]
    build     = ["roles/storage.objectViewer"]
    people    = ["roles/storage.objectUser", "roles/storage.legacyBucketReader"]
    ci        = ["roles/storage.objectUser", "roles/storage.legacyBucketReader"]
  }

  # who -> roles on the repository
  repository_roles = {
    pipelines = ["roles/artifactregistry.reader"]
    build     = ["roles/artifactregistry.writer"]
    people    = ["roles/artifactregistry.writer"]
    ci        = ["roles/artifactregistry.writer"]
  }

  # account -> who may run things as it
  act_as = {
    pipelines = ["pipelines", "people", "ci"]
    build     = ["people", "ci"]
  }

  has_ci = var.github_repository != ""
  members = {
    pipelines = ["serviceAccount:${google_service_account.pipelines.email}"]
    build     = ["serviceAccount:${google_service_account.build.email}"]
    people    = tolist(var.people)
    ci        = local.has_ci ? ["serviceAccount:${google_service_account.ci[0].email}"] : []
  }
  accounts = {
    pipelines = google_service_account.pipelines.name
    build     = google_service_account.build.name
  }
}

resource "google_project_service" "all" {
  for_each           = toset(local.services)
  project            = var.project
  service            = each.key
  disable_on_destroy = false
}

resource "google_storage_bucket" "runs" {
  project                     = var.project
  name                        = var.bucket
  location                    = var.region
  uniform_bucket_level_access = true
  hierarchical_namespace {
    enabled = true
  }
  depends_on = [google_project_service.all]
}

resource "google_artifact_registry_repository" "images" {
  project       = var.project
  location      = var.region
  repository_id = "textdiffusion"
  format        = "DOCKER"
  depends_on    = [google_project_service.all]
}

resource "google_service_account" "pipelines" {
  project    = var.project
  account_id = "pipelines"
  depends_on = [google_project_service.all]
}

resource "google_service_account" "build" {
  project    = var.project
  account_id = "build"
  depends_on = [google_project_service.all]
}

resource "google_service_account" "ci" {
  count      = local.has_ci ? 1 : 0
  project    = var.project
  account_id = "ci"
  depends_on = [google_project_service.all]
}
