output "settings" {
  description = "Content of textdiffusion.yaml"
  value       = <<-EOT
    project: ${var.project}
    region: ${var.region}
    bucket: ${google_storage_bucket.runs.name}
    service_account: ${google_service_account.pipelines.email}
    build_account: ${google_service_account.build.email}
    image: ${var.region}-docker.pkg.dev/${var.project}/${google_artifact_registry_repository.images.repository_id}/textdiffusion
    registry: gs://${google_storage_bucket.runs.name}/registry
  EOT
}

output "workload_identity_provider" {
  description = "For google-github-actions/auth; empty without a repository"
  value       = local.has_ci ? google_iam_workload_identity_pool_provider.github[0].name : ""
}

output "ci_account" {
  description = "For google-github-actions/auth; empty without a repository"
  value       = local.has_ci ? google_service_account.ci[0].email : ""
}
