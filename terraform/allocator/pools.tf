# The part of the server's role that is about machines (access.tf holds the rest).
data "aws_iam_policy_document" "pools" {
  statement {
    # Looking. EC2's Describe actions know no resource: AWS offers nothing narrower.
    sid = "Look"
    actions = [
      "ec2:DescribeAvailabilityZones",
      "ec2:DescribeImages",
      "ec2:DescribeInstanceAttribute",
      "ec2:DescribeInstanceCreditSpecifications",
      "ec2:DescribeInstanceStatus",
      "ec2:DescribeInstanceTypeOfferings",
      "ec2:DescribeInstanceTypes",
      "ec2:DescribeInstances",
      "ec2:DescribeKeyPairs",
      "ec2:DescribeNetworkInterfaces",
      "ec2:DescribeSecurityGroupRules",
      "ec2:DescribeSecurityGroups",
      "ec2:DescribeSpotInstanceRequests",
      "ec2:DescribeSpotPriceHistory",
      "ec2:DescribeSubnets",
      "ec2:DescribeTags",
      "ec2:DescribeVolumes",
      "ec2:DescribeVpcAttribute",
      "ec2:DescribeVpcs",
      "pricing:GetProducts",
    ]
    resources = ["*"]
  }
  statement {
    sid       = "Quotas"
    actions   = ["servicequotas:GetServiceQuota"]
    resources = ["${local.arn}:servicequotas:${var.region}:${local.account}:ec2/*"]
  }
  statement {
    sid       = "PublicAmis"
    actions   = ["ssm:GetParameter", "ssm:GetParameters"]
    resources = ["${local.arn}:ssm:${var.region}::parameter/aws/service/*"]
  }
  statement {
    sid       = "Launch"
    actions   = ["ec2:RunInstances"]
    resources = ["${local.ec2}:instance/*"]

    dynamic "condition" {
      for_each = local.becomes_pools
      content {
        test     = "StringEquals"
        variable = condition.key
        values   = [condition.value]
      }
    }
    condition {
      test     = "StringEquals"
      variable = "ec2:MetadataHttpTokens"
      values   = ["required"]
    }
  }
  statement {
    sid     = "LaunchWith"
    actions = ["ec2:RunInstances"]
    resources = [
      "${local.arn}:ec2:${var.region}::image/*",
      "${local.ec2}:image/*",
      "${local.ec2}:key-pair/${local.pools}",
      "${local.ec2}:network-interface/*",
      "${local.ec2}:spot-instances-request/*",
      "${local.ec2}:subnet/*",
    ]
  }
  statement {
    sid       = "LaunchWithEncryptedDisks"
    actions   = ["ec2:RunInstances"]
    resources = ["${local.ec2}:volume/*"]

    condition {
      test     = "Bool"
      variable = "ec2:Encrypted"
      values   = ["true"]
    }
  }
  statement {
    sid       = "LaunchWithOwnGroups"
    actions   = ["ec2:RunInstances"]
    resources = ["${local.ec2}:security-group/*"]

    dynamic "condition" {
      for_each = local.is_pools
      content {
        test     = "StringEquals"
        variable = condition.key
        values   = [condition.value]
      }
    }
  }
  statement {
    sid = "OwnMachinesAndGroups"
    actions = [
      "ec2:AuthorizeSecurityGroupEgress",
      "ec2:AuthorizeSecurityGroupIngress",
      "ec2:CreateTags",
      "ec2:DeleteSecurityGroup",
      "ec2:ModifyInstanceAttribute",
      "ec2:RebootInstances",
      "ec2:RevokeSecurityGroupEgress",
      "ec2:RevokeSecurityGroupIngress",
      "ec2:StartInstances",
      "ec2:StopInstances",
      "ec2:TerminateInstances",
    ]
    resources = ["${local.ec2}:instance/*", "${local.ec2}:security-group/*"]

    dynamic "condition" {
      for_each = local.is_pools
      content {
        test     = "StringEquals"
        variable = condition.key
        values   = [condition.value]
      }
    }
  }
  statement {
    sid       = "NewGroups"
    actions   = ["ec2:CreateSecurityGroup"]
    resources = ["${local.ec2}:security-group/*"]

    dynamic "condition" {
      for_each = local.becomes_pools
      content {
        test     = "StringEquals"
        variable = condition.key
        values   = [condition.value]
      }
    }
  }
  statement {
    sid       = "NewGroupsIn"
    actions   = ["ec2:CreateSecurityGroup"]
    resources = ["${local.ec2}:vpc/*"]
  }
  statement {
    sid       = "Keys"
    actions   = ["ec2:DeleteKeyPair", "ec2:ImportKeyPair"]
    resources = ["${local.ec2}:key-pair/${local.pools}"]
  }
  statement {
    # Tags may be put on what is made in this very call, and on nothing else that exists.
    sid     = "TagsAtBirth"
    actions = ["ec2:CreateTags"]
    resources = [
      "${local.ec2}:instance/*",
      "${local.ec2}:key-pair/*",
      "${local.ec2}:security-group/*",
      "${local.ec2}:spot-instances-request/*",
    ]

    condition {
      test     = "StringEquals"
      variable = "ec2:CreateAction"
      values   = ["CreateSecurityGroup", "ImportKeyPair", "RunInstances"]
    }
  }
  statement {
    # Terraform tags a machine's disk after it was made. Nothing here is allowed by a disk's tags.
    sid       = "TagsOnDisks"
    actions   = ["ec2:CreateTags"]
    resources = ["${local.ec2}:volume/*"]

    dynamic "condition" {
      for_each = local.becomes_pools
      content {
        test     = "StringEquals"
        variable = condition.key
        values   = [condition.value]
      }
    }
  }
  statement {
    sid       = "NewRoles"
    actions   = local.role_changes
    resources = [local.pool_role]

    condition {
      test     = "StringEquals"
      variable = "iam:PermissionsBoundary"
      values   = [local.pool_bounds]
    }
  }
  statement {
    sid       = "Roles"
    actions   = local.iam_rest
    resources = [local.pool_role, "${local.arn}:iam::${local.account}:instance-profile/${local.pools}"]
  }
  statement {
    sid       = "HandRolesToMachines"
    actions   = ["iam:PassRole"]
    resources = [local.pool_role]

    condition {
      test     = "StringEquals"
      variable = "iam:PassedToService"
      values   = ["ec2.amazonaws.com"]
    }
  }
  statement {
    # AWS makes this role itself, at an account's first spot machine.
    sid       = "Spot"
    actions   = ["iam:CreateServiceLinkedRole"]
    resources = ["${local.arn}:iam::${local.account}:role/aws-service-role/spot.amazonaws.com/*"]

    condition {
      test     = "StringEquals"
      variable = "iam:AWSServiceName"
      values   = ["spot.amazonaws.com"]
    }
  }
  statement {
    # Its own role has a name of that shape too. A deny wins.
    sid       = "NeverItself"
    effect    = "Deny"
    actions   = concat(local.role_changes, local.iam_rest, ["iam:PassRole"])
    resources = local.own_iam
  }
}
