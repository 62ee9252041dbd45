# A VM may talk to Session Manager, and nothing else. (AWS's own AmazonSSMManagedInstanceCore would let it read every
# parameter of the account.)
data "aws_iam_policy_document" "assume" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

data "aws_partition" "current" {}

data "aws_caller_identity" "current" {}

data "aws_iam_policy_document" "vm" {
  statement {
    sid       = "Register"
    actions   = ["ssm:UpdateInstanceInformation"]
    resources = ["arn:${data.aws_partition.current.partition}:ec2:${var.region}:${data.aws_caller_identity.current.account_id}:instance/*"]
  }
  statement {
    # These know no resource: AWS offers nothing narrower.
    sid = "Channels"
    actions = [
      "ssmmessages:CreateControlChannel",
      "ssmmessages:CreateDataChannel",
      "ssmmessages:OpenControlChannel",
      "ssmmessages:OpenDataChannel",
    ]
    resources = ["*"]
  }
}

resource "aws_iam_role" "pool" {
  count = local.shared

  name               = local.name
  description        = "LabLink VMs of pool ${var.pool} (${var.environment})"
  assume_role_policy = data.aws_iam_policy_document.assume.json
  tags               = local.tags
  # A server that could make roles without it could give itself any right.
  permissions_boundary = var.permissions_boundary
}

resource "aws_iam_role_policy" "pool" {
  count = local.shared

  name   = "session-manager"
  role   = aws_iam_role.pool[0].id
  policy = data.aws_iam_policy_document.vm.json
}

resource "aws_iam_instance_profile" "pool" {
  count = local.shared

  name = local.name
  role = aws_iam_role.pool[0].name
  tags = local.tags
}

# Its private half is made by the server and never passes through Terraform.
resource "aws_key_pair" "pool" {
  count = var.public_key == null ? 0 : local.shared

  key_name   = local.name
  public_key = var.public_key
  tags       = local.tags

  lifecycle {
    ignore_changes = [public_key]
  }
}
