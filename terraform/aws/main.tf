# VMs are EC2 instances: one for each hostname, alike within a pool, each made once and never changed afterwards.
# What a pool shares (its group, its role, its key) lives as long as the pool has a VM.

terraform {
  required_version = ">= 1.9"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "5.100.0"
    }
  }
}

# Credentials come from the environment, as every AWS tool reads them.
provider "aws" {
  region = var.region
  # Attempts, in truth: 1 repeats nothing. The provider's own 25 go on for most of an hour where a zone has no room.
  max_retries = var.attempts
}

locals {
  name   = "lablink-${var.pool}-${var.environment}"
  shared = length(var.vms) > 0 ? 1 : 0
  # Whoever has a user_data here is made by this very run; all others are living and stay as they are.
  made_now = nonsensitive(toset(keys(var.user_data)))
  tags = {
    ManagedBy   = "lablink"
    Server      = var.server
    Owner       = var.owner
    Pool        = var.pool
    Environment = var.environment
    Cost        = var.cost
  }
}

resource "aws_instance" "vm" {
  for_each = var.vms

  ami                    = terraform_data.ami[0].output
  instance_type          = each.value.instance_type
  subnet_id              = local.subnet_of_vm[each.key]
  vpc_security_group_ids = [aws_security_group.pool[0].id]
  iam_instance_profile   = aws_iam_instance_profile.pool[0].name
  key_name               = one(aws_key_pair.pool[*].key_name)
  user_data              = lookup(var.user_data, each.key, null)
  tags                   = merge(local.tags, { Name = each.key })

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  root_block_device {
    encrypted             = true
    volume_type           = "gp3"
    volume_size           = var.volume_gb
    delete_on_termination = true
    tags                  = merge(local.tags, { Name = each.key })
  }

  dynamic "instance_market_options" {
    for_each = var.spot ? ["spot"] : []
    content {
      market_type = "spot"
      spot_options {
        spot_instance_type             = "one-time"
        instance_interruption_behavior = "terminate"
      }
    }
  }

  lifecycle {
    # A living VM is never touched by a later version of this file or of the pool's specification.
    ignore_changes = all

    precondition {
      condition     = !contains(local.made_now, each.key) || local.subnet_of_vm[each.key] != null
      error_message = "There is no subnet for ${each.key} in zone ${coalesce(each.value.zone, "(any)")}."
    }
  }
}

# The AMI as it was when the pool's first VM was made: "latest" may move on, the pool's VMs stay alike. It is looked up
# anew once the pool names another one, or has been empty.
resource "terraform_data" "ami" {
  count = local.shared

  input            = local.ami
  triggers_replace = [var.ami]

  lifecycle {
    ignore_changes = [input]
  }
}

data "aws_ssm_parameter" "ami" {
  count = startswith(var.ami, "/") && length(local.made_now) > 0 ? 1 : 0

  name = var.ami
}

locals {
  ami = var.held_ami != null ? var.held_ami : startswith(var.ami, "/") ? one(nonsensitive(data.aws_ssm_parameter.ami[*].value)) : var.ami
}
