variable "environment" {
  description = "The environment, part of every name: three of them live side by side in one account."
  type        = string

  validation {
    condition     = contains(["dev", "test", "prod"], var.environment)
    error_message = "The environment is dev, test or prod."
  }
}

variable "region" {
  description = "The region."
  type        = string
}

variable "domain" {
  description = "The name under which people and VMs reach the server, such as lablink.example.org."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+$", var.domain))
    error_message = "The domain is a full name in lower case, such as lablink.example.org."
  }
}

variable "zone_id" {
  description = "The Route 53 zone that gets the domain's record; null if its address is set elsewhere."
  type        = string
  default     = null
}

variable "image" {
  description = "The server's image, without its tag, such as ghcr.io/example/lablink-allocator."
  type        = string
}

variable "image_tag" {
  description = "The tag of the server's image."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$", var.image_tag)) && var.image_tag != "latest"
    error_message = "The tag names one image; latest names whichever came last."
  }
  validation {
    condition     = var.environment != "prod" || can(regex("^[0-9]+\\.[0-9]+\\.[0-9]+$", var.image_tag))
    error_message = "prod runs releases alone, such as 1.4.0."
  }
}

variable "settings" {
  description = "Settings of the server (`lablink config` lists them), as a map from key to value."
  type        = map(string)
  default     = {}
}

variable "owner" {
  description = "Who answers for this server; a tag."
  type        = string
}

variable "cost" {
  description = "What this server is booked on; a tag."
  type        = string
  default     = "lablink"
}

variable "instance_type" {
  description = "The type of the host; x86, as the image is."
  type        = string
  default     = "t3.medium"
}

variable "volume_gb" {
  description = "The size of the host's encrypted root volume, in GB."
  type        = number
  default     = 30

  validation {
    condition     = var.volume_gb >= 20
    error_message = "The host needs 20 GB or more."
  }
}

variable "ami" {
  description = "The host's AMI, an Ubuntu: its id, or the SSM parameter that names it."
  type        = string
  default     = "/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id"
}

variable "vpc_id" {
  description = "The VPC; the region's default one if null."
  type        = string
  default     = null
}

variable "subnet_id" {
  description = "The host's public subnet; the VPC's first that offers the type if null."
  type        = string
  default     = null
}

variable "allowed_cidrs" {
  description = "From where the pages can be reached (80 and 443). A VM must be able to as well."
  type        = list(string)
  default     = ["0.0.0.0/0"]

  validation {
    condition     = length(var.allowed_cidrs) > 0 && alltrue([for cidr in var.allowed_cidrs : can(cidrnetmask(cidr))])
    error_message = "List IPv4 networks, such as [\"192.0.2.0/24\"]."
  }
}

variable "database" {
  description = "Where Postgres runs: on the host (host) or in RDS (rds)."
  type        = string
  default     = "host"

  validation {
    condition     = contains(["host", "rds"], var.database)
    error_message = "The database is on the host, or in rds."
  }
}

variable "database_class" {
  description = "The class of the RDS instance."
  type        = string
  default     = "db.t4g.small"
}

variable "database_gb" {
  description = "The storage of the RDS instance, in GB."
  type        = number
  default     = 20
}

variable "backup_days" {
  description = "How many days a nightly backup is kept."
  type        = number
  default     = 30

  validation {
    condition     = var.backup_days >= 1
    error_message = "A backup is kept for at least a day."
  }
}

variable "state_bucket" {
  description = "The bucket that `lablink deploy bootstrap` made; null where the state is local."
  type        = string
  default     = null
}

variable "kept_bucket" {
  description = "The bucket of backups that an earlier destroy left, taken in again; null if there is none."
  type        = string
  default     = null
}

variable "kept_secret_arn" {
  description = "The secret that an earlier destroy left, taken in again; null if there is none."
  type        = string
  default     = null
}
