variable "project" {
  description = "Id of the Google Cloud project"
  type        = string
}

variable "region" {
  description = "Region of bucket, repository and runs, such as europe-west4"
  type        = string
}

variable "bucket" {
  description = "Name of the bucket, without gs://"
  type        = string
}

variable "people" {
  description = "Members who build the image, submit runs and watch them, such as user:you@example.com"
  type        = set(string)
  default     = []
}

variable "github_repository" {
  description = "OWNER/NAME of the repository whose main branch deploys; empty: none"
  type        = string
  default     = ""
}
