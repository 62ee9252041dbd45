# VMs are processes on this machine: one real agent each, started and stopped by `backend.provisioning.local_vms`.
# Where VMs live, the server's address and the enrolment tokens come in Terraform's environment, so that the state holds
# names only and no secret ever passes through Terraform.

terraform {
  required_version = ">= 1.9"
}

variable "hostnames" {
  description = "The VMs that shall exist."
  type        = set(string)

  validation {
    condition     = alltrue([for name in var.hostnames : can(regex("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", name))])
    error_message = "A hostname has 1 to 63 lower-case letters, digits and inner hyphens."
  }
}

resource "terraform_data" "vm" {
  for_each = var.hostnames

  input = { hostname = each.key }

  # A living VM is never touched by a later version of this file.
  lifecycle {
    ignore_changes = [input]
  }

  provisioner "local-exec" {
    interpreter = ["python3", "-m", "backend.provisioning.local_vms"]
    command     = "start"
    environment = { LABLINK_VM = each.key }
  }

  provisioner "local-exec" {
    when        = destroy
    interpreter = ["python3", "-m", "backend.provisioning.local_vms"]
    command     = "stop"
    environment = { LABLINK_VM = self.input.hostname }
  }
}
