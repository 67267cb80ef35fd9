#!/bin/bash
# Makes once what gpu.yaml names in your AWS account; run again, it changes nothing that is there.
#
#     bash cluster/aws-account.sh REGION BUCKET [MAIL MONTHLY_USD]
#
# - BUCKET, private and encrypted, for checkpoints, state and results
# - the instance profiles segbench-head and segbench-worker, with the policies beside this file and nothing else
# - the security group segbench: SSH from the address you are at now, and everything between its members
# - with MAIL: a monthly budget over everything that is tagged project=segbench, with a warning at 80 %
#
# Needs the AWS command line with rights to do all that: `aws sts get-caller-identity` tells who you are.
set -euo pipefail
[ $# -eq 2 ] || [ $# -eq 4 ] || { sed -n '2,12p' "$0"; exit 2; }
region=$1 bucket=$2 mail=${3:-} usd=${4:-}
here=$(cd "$(dirname "$0")" && pwd)
export AWS_DEFAULT_REGION=$region AWS_PAGER=

if ! aws s3api head-bucket --bucket "$bucket" >/dev/null 2>&1; then
  if [ "$region" = us-east-1 ]; then place=(); else place=(--create-bucket-configuration "LocationConstraint=$region"); fi
  aws s3api create-bucket --bucket "$bucket" "${place[@]}" >/dev/null
  aws s3api put-public-access-block --bucket "$bucket" --public-access-block-configuration \
    BlockPublicAcls=true,IgnorePublicAcls=true,BlockPublicPolicy=true,RestrictPublicBuckets=true
fi

for role in segbench-head segbench-worker; do
  aws iam get-role --role-name $role >/dev/null 2>&1 ||
    aws iam create-role --role-name $role --tags Key=project,Value=segbench --assume-role-policy-document \
      '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ec2.amazonaws.com"},"Action":"sts:AssumeRole"}]}' >/dev/null
  aws iam put-role-policy --role-name $role --policy-name segbench \
    --policy-document "$(sed "s/segbench-example/$bucket/" "$here/aws-${role#segbench-}-policy.json")"
  if ! aws iam get-instance-profile --instance-profile-name $role >/dev/null 2>&1; then
    aws iam create-instance-profile --instance-profile-name $role >/dev/null
    aws iam add-role-to-instance-profile --instance-profile-name $role --role-name $role
  fi
done

group=$(aws ec2 describe-security-groups --filters Name=group-name,Values=segbench \
  --query 'SecurityGroups[0].GroupId' --output text)
if [ "$group" = None ]; then
  vpc=$(aws ec2 describe-vpcs --filters Name=is-default,Values=true --query 'Vpcs[0].VpcId' --output text)
  group=$(aws ec2 create-security-group --group-name segbench --vpc-id "$vpc" --query GroupId --output text \
    --description 'segbench: SSH from its owner, all between its members')
  aws ec2 authorize-security-group-ingress --group-id "$group" \
    --ip-permissions "IpProtocol=-1,UserIdGroupPairs=[{GroupId=$group}]" >/dev/null
  address=${SEGBENCH_SSH_FROM:-$(curl -fsS https://checkip.amazonaws.com)/32}
  aws ec2 authorize-security-group-ingress --group-id "$group" --protocol tcp --port 22 --cidr "$address" >/dev/null
fi

if [ -n "$mail" ]; then
  account=$(aws sts get-caller-identity --query Account --output text)
  aws budgets describe-budget --account-id "$account" --budget-name segbench >/dev/null 2>&1 ||
    aws budgets create-budget --account-id "$account" --budget \
      "BudgetName=segbench,BudgetType=COST,TimeUnit=MONTHLY,BudgetLimit={Amount=$usd,Unit=USD},CostFilters={TagKeyValue=['user:project\$segbench']}" \
      --notifications-with-subscribers \
      "Notification={NotificationType=ACTUAL,ComparisonOperator=GREATER_THAN,Threshold=80,ThresholdType=PERCENTAGE},Subscribers=[{SubscriptionType=EMAIL,Address=$mail}]"
fi

echo "in cluster/gpu.yaml: region: $region, storage: s3://$bucket/runs, SecurityGroupIds: [$group]"
