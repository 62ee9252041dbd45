"""The forms of what AWS calls things, each as a regular expression and the words for it: for settings and for pools."""

from __future__ import annotations

Form = tuple[str, str]

REGION: Form = (r"[a-z]{2}(-[a-z]+)+-\d", "a region, such as us-west-2")
INSTANCE_TYPE: Form = (r"[a-z][a-z0-9-]*\.[a-z0-9-]+", "instance types, such as g4dn.xlarge")
ZONE: Form = (r"[a-z]{2}(-[a-z0-9]+)+[a-z]", "availability zones, such as us-west-2a")
SUBNET: Form = (r"subnet-[0-9a-f]{8,17}", "ids of subnets, such as subnet-0123456789abcdef0")
VPC: Form = (r"vpc-[0-9a-f]{8,17}", "the id of a VPC, such as vpc-0123456789abcdef0")
AMI: Form = (
    r"ami-[0-9a-f]{8,17}|/[A-Za-z0-9_./-]{1,1000}",
    "an AMI's id, or the SSM parameter that names one, such as /aws/service/…/ami-id",
)
# Never /0: a machine's SSH is not for the whole internet.
NETWORK: Form = (
    r"\d{1,3}(\.\d{1,3}){3}/(3[0-2]|[12]\d|[1-9])",
    "IPv4 networks with /1 to /32, such as 192.0.2.0/24",
)
# docs.aws.amazon.com/tag-editor/latest/userguide/best-practices-and-strats.html
TAG: Form = (r"[\w.:/=+@ -]{1,128}", "1 to 128 letters, digits, spaces and . : / = + - @ _")
BUCKET: Form = (r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", "the name of an S3 bucket")
POLICY: Form = (r"arn:aws[a-z-]*:iam::(\d{12}|aws):policy/[\w+=,.@/-]{1,512}", "the ARN of a managed policy")
IMAGE: Form = (r"[a-z0-9][A-Za-z0-9._/:@-]{0,254}", "a container image, such as ghcr.io/example/lab:1.2")
