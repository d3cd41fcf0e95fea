locals {
  # One entry for each member and role. Keys are known before anything is made: the place of a member in its list.
  project_bindings = merge([for who, roles in local.project_roles : {
    for pair in setproduct(range(local.counts[who]), roles) : "${who} ${pair[0]} ${pair[1]}" => { who = who, place = pair[0], role = pair[1] }
  }]...)
  bucket_bindings = merge([for who, roles in local.bucket_roles : {
    for pair in setproduct(range(local.counts[who]), roles) : "${who} ${pair[0]} ${pair[1]}" => { who = who, place = pair[0], role = pair[1] }
  }]...)
  repository_bindings = merge([for who, roles in local.repository_roles : {
    for pair in setproduct(range(local.counts[who]), roles) : "${who} ${pair[0]} ${pair[1]}" => { who = who, place = pair[0], role = pair[1] }
  }]...)
  act_as_bindings = merge(flatten([for account, many in local.act_as : [for who in many : {
    for place in range(local.counts[who]) : "${account} ${who} ${place}" => { account = account, who = who, place = place }
  }]])...)
  counts = {
    pipelines = 1
    build     = 1
    people    = length(var.people)
    ci        = local.has_ci ? 1 : 0
  }
}

resource "google_project_iam_member" "all" {
  for_each = local.project_bindings
  project  = var.project
  role     = each.value.role
  member   = local.members[each.value.who][each.value.place]
}

resource "google_storage_bucket_iam_member" "all" {
  for_each = local.bucket_bindings
  bucket   = google_storage_bucket.runs.name
  role     = each.value.role
  member   = local.members[each.value.who][each.value.place]
}

resource "google_artifact_registry_repository_iam_member" "all" {
  for_each   = local.repository_bindings
  project    = var.project
  location   = var.region
  repository = google_artifact_registry_repository.images.name
  role       = each.value.role
  member     = local.members[each.value.who][each.value.place]
}

resource "google_service_account_iam_member" "act_as" {
  for_each           = local.act_as_bindings
  service_account_id = local.accounts[each.value.account]
  role               = "roles/iam.serviceAccountUser"
  member             = local.members[each.value.who][each.value.place]
}
