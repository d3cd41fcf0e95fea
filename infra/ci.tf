# One repository's main branch proves who it is by its own token, so that no key exists that could leak.
resource "google_iam_workload_identity_pool" "ci" {
  count                     = local.has_ci ? 1 : 0
  project                   = var.project
  workload_identity_pool_id = "ci"
  depends_on                = [google_project_service.all]
}

resource "google_iam_workload_identity_pool_provider" "github" {
  count                              = local.has_ci ? 1 : 0
  project                            = var.project
  workload_identity_pool_id          = google_iam_workload_identity_pool.ci[0].workload_identity_pool_id
  workload_identity_pool_provider_id = "github"
  attribute_condition                = "assertion.repository=='${var.github_repository}' && assertion.ref=='refs/heads/main'"
  attribute_mapping = {
    "google.subject"       = "assertion.sub"
    "attribute.repository" = "assertion.repository"
    "attribute.ref"        = "assertion.ref"
  }
  oidc {
    issuer_uri = "https://token.actions.githubusercontent.com"
  }
}

resource "google_service_account_iam_member" "federated" {
  count              = local.has_ci ? 1 : 0
  service_account_id = google_service_account.ci[0].name
  role               = "roles/iam.workloadIdentityUser"
  member             = "principalSet://iam.googleapis.com/${google_iam_workload_identity_pool.ci[0].name}/attribute.repository/${var.github_repository}"
}
