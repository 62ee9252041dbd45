# The web's two ports, and nothing else: a shell goes through Session Manager, and Postgres is nobody's outside.
resource "aws_security_group" "server" {
  name        = local.name
  description = "LabLink server (${var.environment})"
  vpc_id      = data.aws_vpc.server.id
  tags        = { Name = local.name }

  # As attributes, not blocks: whatever is not listed here, somebody's own rule included, is removed.
  ingress = [for port, what in { 80 = "HTTP: certificates, and the way to HTTPS", 443 = "HTTPS" } : {
    description      = what
    protocol         = "tcp"
    from_port        = port
    to_port          = port
    cidr_blocks      = var.allowed_cidrs
    ipv6_cidr_blocks = []
    prefix_list_ids  = []
    security_groups  = []
    self             = false
  }]
  egress = [{
    description      = "AWS, the registries, the certificate authority"
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

data "aws_vpc" "server" {
  id      = var.vpc_id
  default = var.vpc_id == null ? true : null
}

data "aws_subnets" "all" {
  filter {
    name   = "vpc-id"
    values = [data.aws_vpc.server.id]
  }
}

# Not every zone offers every type (us-east-1e is behind by years).
data "aws_ec2_instance_type_offerings" "server" {
  location_type = "availability-zone"

  filter {
    name   = "instance-type"
    values = [var.instance_type]
  }
}

data "aws_subnets" "server" {
  filter {
    name   = "vpc-id"
    values = [data.aws_vpc.server.id]
  }
  filter {
    name   = "availability-zone"
    values = data.aws_ec2_instance_type_offerings.server.locations
  }
  filter {
    name   = "map-public-ip-on-launch"
    values = ["true"]
  }
}

locals {
  subnet = var.subnet_id != null ? var.subnet_id : try(sort(data.aws_subnets.server.ids)[0], null)
}
