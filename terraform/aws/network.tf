# Nothing comes in: agents only dial out, and shells of last resort go through Session Manager.
resource "aws_security_group" "pool" {
  count = local.shared

  name        = local.name
  description = "LabLink VMs of pool ${var.pool} (${var.environment})"
  vpc_id      = data.aws_vpc.pool[0].id
  tags        = merge(local.tags, { Name = local.name })

  # As attributes, not blocks: whatever is not listed here, somebody's own rule included, is removed.
  ingress = [for cidr in var.ssh_cidrs : {
    description      = "SSH"
    protocol         = "tcp"
    from_port        = 22
    to_port          = 22
    cidr_blocks      = [cidr]
    ipv6_cidr_blocks = []
    prefix_list_ids  = []
    security_groups  = []
    self             = false
  }]
  egress = [{
    description      = "The server, the registries, the repositories"
    protocol         = "-1"
    from_port        = 0
    to_port          = 0
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
    prefix_list_ids  = []
    security_groups  = []
    self             = false
  }]
}

data "aws_vpc" "pool" {
  count = local.shared

  id      = var.vpc_id
  default = var.vpc_id == null ? true : null
}

data "aws_subnets" "pool" {
  count = local.shared

  filter {
    name   = "vpc-id"
    values = [data.aws_vpc.pool[0].id]
  }
}

data "aws_subnet" "pool" {
  for_each = toset(flatten(data.aws_subnets.pool[*].ids))

  id = each.key
}

locals {
  subnets_of_zone = { for subnet in data.aws_subnet.pool : subnet.availability_zone => subnet.id... }
  subnets         = sort(keys(data.aws_subnet.pool))
  subnet_of_vm = { for hostname, vm in var.vms : hostname => (
    vm.subnet_id != null ? vm.subnet_id
    : vm.zone != null ? try(sort(local.subnets_of_zone[vm.zone])[0], null)
    : try(local.subnets[0], null)
  ) }
}
