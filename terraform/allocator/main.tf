# The server's own host: one EC2 instance that runs the server, its TLS proxy and (unless RDS does) Postgres as
# containers. What lives on it is backed up every night; what it may do is what the pools need.

terraform {
  # Passwords that no state holds (write-only arguments) and S3's lock file came with 1.11.
  required_version = ">= 1.11"

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

  default_tags {
    tags = local.tags
  }
}

data "aws_partition" "current" {}

data "aws_caller_identity" "current" {}

locals {
  name    = "lablink-allocator-${var.environment}"
  account = data.aws_caller_identity.current.account_id
  arn     = "arn:${data.aws_partition.current.partition}"
  # Never the tag that the pools' VMs bear: by that tag the server may end them, and it must not end itself.
  tags = {
    ManagedBy   = "lablink-deploy"
    Environment = var.environment
    Owner       = var.owner
    Cost        = var.cost
  }
}

resource "aws_instance" "server" {
  ami                    = local.ami
  instance_type          = var.instance_type
  subnet_id              = local.subnet
  vpc_security_group_ids = [aws_security_group.server.id]
  iam_instance_profile   = aws_iam_instance_profile.server.name
  user_data              = local.user_data
  ebs_optimized          = true
  tags                   = { Name = local.name }

  metadata_options {
    http_endpoint = "enabled"
    http_tokens   = "required"
    # The server and the proxy share the host's network, so that one hop is enough; no other container gets there.
    http_put_response_hop_limit = 1
  }

  root_block_device {
    encrypted             = true
    volume_type           = "gp3"
    volume_size           = var.volume_gb
    delete_on_termination = true
    tags                  = merge(local.tags, { Name = local.name })
  }

  lifecycle {
    # Postgres may live on it: it is replaced when somebody says so, never by a newer AMI or a later version of these
    # files. What it runs follows a parameter instead (host.tf).
    ignore_changes = [ami, user_data]

    precondition {
      condition     = local.subnet != null
      error_message = "No public subnet of the VPC offers ${var.instance_type}: name one by subnet_id."
    }
    precondition {
      condition     = length(local.user_data) < 16384
      error_message = "The host's user_data must be below 16 kB."
    }
  }
}

resource "aws_eip" "server" {
  domain = "vpc"
  tags   = { Name = local.name }
}

resource "aws_eip_association" "server" {
  allocation_id = aws_eip.server.id
  instance_id   = aws_instance.server.id
}

resource "aws_route53_record" "server" {
  count = var.zone_id == null ? 0 : 1

  zone_id = var.zone_id
  name    = var.domain
  type    = "A"
  ttl     = 60
  records = [aws_eip.server.public_ip]
}

data "aws_ssm_parameter" "ami" {
  count = startswith(var.ami, "/") ? 1 : 0

  name = var.ami
}

locals {
  ami = startswith(var.ami, "/") ? one(nonsensitive(data.aws_ssm_parameter.ami[*].value)) : var.ami
}
