# What the server may do: make, watch and end the machines of its own pools, read its own secrets and parameters, and
# write its own backups. Pools' things are named lablink-POOL-ENVIRONMENT and tagged (terraform/aws), by which they are
# known here.
locals {
  ec2         = "${local.arn}:ec2:${var.region}:${local.account}"
  pools       = "lablink-*-${var.environment}"
  pool_role   = "${local.arn}:iam::${local.account}:role/${local.pools}"
  pool_bounds = "${local.arn}:iam::${local.account}:policy/${local.bounds_name}"
  bounds_name = "lablink-vm-boundary-${var.environment}"
  own_iam = [
    "${local.arn}:iam::${local.account}:role/${local.name}",
    "${local.arn}:iam::${local.account}:instance-profile/${local.name}",
  ]
  # On what exists and is a pool's of this environment.
  is_pools = {
    "aws:ResourceTag/ManagedBy"   = "lablink"
    "aws:ResourceTag/Environment" = var.environment
  }
  # On what is being made, which must then say so itself.
  becomes_pools = {
    "aws:RequestTag/ManagedBy"   = "lablink"
    "aws:RequestTag/Environment" = var.environment
  }
  role_changes = [
    "iam:CreateRole",
    "iam:PutRolePolicy",
  ]
  iam_rest = [
    "iam:AddRoleToInstanceProfile",
    "iam:CreateInstanceProfile",
    "iam:DeleteInstanceProfile",
    "iam:DeleteRole",
    "iam:DeleteRolePolicy",
    "iam:GetInstanceProfile",
    "iam:GetRole",
    "iam:GetRolePolicy",
    "iam:ListAttachedRolePolicies",
    "iam:ListInstanceProfilesForRole",
    "iam:ListRolePolicies",
    "iam:RemoveRoleFromInstanceProfile",
    "iam:TagInstanceProfile",
    "iam:TagRole",
  ]
}

resource "aws_iam_role" "server" {
  name               = local.name
  description        = "LabLink server (${var.environment})"
  assume_role_policy = data.aws_iam_policy_document.assume.json
}

resource "aws_iam_instance_profile" "server" {
  name = local.name
  role = aws_iam_role.server.name
}

resource "aws_iam_role_policy" "host" {
  name   = "host"
  role   = aws_iam_role.server.id
  policy = data.aws_iam_policy_document.host.json
}

resource "aws_iam_role_policy" "pools" {
  name   = "pools"
  role   = aws_iam_role.server.id
  policy = data.aws_iam_policy_document.pools.json
}

# The most that a role made by the server can ever allow: without it, whoever holds the server could make a role that
# may do anything, and start a machine with it.
resource "aws_iam_policy" "vm_boundary" {
  name        = local.bounds_name
  description = "The most that LabLink VMs may do (${var.environment})"
  policy      = data.aws_iam_policy_document.vm_boundary.json
}

data "aws_iam_policy_document" "assume" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

data "aws_iam_policy_document" "vm_boundary" {
  statement {
    sid       = "Register"
    actions   = ["ssm:UpdateInstanceInformation"]
    resources = ["${local.ec2}:instance/*"]
  }
  statement {
    # These know no resource: AWS offers nothing narrower.
    sid       = "Channels"
    actions   = local.session_channels
    resources = ["*"]
  }
}

locals {
  session_channels = [
    "ssmmessages:CreateControlChannel",
    "ssmmessages:CreateDataChannel",
    "ssmmessages:OpenControlChannel",
    "ssmmessages:OpenDataChannel",
  ]
}

data "aws_iam_policy_document" "host" {
  statement {
    sid       = "Register"
    actions   = ["ssm:UpdateInstanceInformation"]
    resources = ["${local.ec2}:instance/*"]
  }
  statement {
    # A shell by Session Manager. These know no resource: AWS offers nothing narrower.
    sid       = "Channels"
    actions   = local.session_channels
    resources = ["*"]
  }
  statement {
    sid       = "WhatToRun"
    actions   = ["ssm:GetParameter"]
    resources = ["${local.arn}:ssm:${var.region}:${local.account}:parameter/lablink/${var.environment}/*"]
  }
  statement {
    # AWS puts six letters behind a secret's name. The host makes the value, once.
    sid       = "OwnSecret"
    actions   = ["secretsmanager:GetSecretValue", "secretsmanager:PutSecretValue"]
    resources = ["${local.arn}:secretsmanager:${var.region}:${local.account}:secret:${local.name}-??????"]
  }
  dynamic "statement" {
    for_each = local.rds == 1 ? [1] : []
    content {
      sid       = "DatabasePassword"
      actions   = ["secretsmanager:GetSecretValue"]
      resources = ["${local.arn}:secretsmanager:${var.region}:${local.account}:secret:lablink-database-${var.environment}-??????"]
    }
  }
  statement {
    # It writes and reads backups; old ones are ended by the bucket's lifecycle, never by the host.
    sid       = "Backups"
    actions   = ["s3:GetObject", "s3:PutObject"]
    resources = ["${local.arn}:s3:::${local.bucket}/*"]
  }
  statement {
    sid       = "ListBackups"
    actions   = ["s3:ListBucket"]
    resources = ["${local.arn}:s3:::${local.bucket}"]
  }
  dynamic "statement" {
    for_each = var.state_bucket == null ? [] : [var.state_bucket]
    content {
      sid       = "PoolStates"
      actions   = ["s3:DeleteObject", "s3:GetObject", "s3:GetObjectVersion", "s3:PutObject"]
      resources = ["${local.arn}:s3:::${statement.value}/pools/${var.environment}/*"]
    }
  }
  dynamic "statement" {
    for_each = var.state_bucket == null ? [] : [var.state_bucket]
    content {
      sid       = "ListPoolStates"
      actions   = ["s3:GetBucketVersioning", "s3:ListBucket", "s3:ListBucketVersions"]
      resources = ["${local.arn}:s3:::${statement.value}"]
    }
  }
}
