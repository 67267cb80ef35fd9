#!/bin/bash
# Isolated machines on one Linux machine, as `ray up` needs to see them: each has its own network, process, mount, host-name
# and ipc namespaces, its own file system over this one's, /tmp, /dev/shm and SSH server. Needs root, iproute2,
# openssh-server and rsync; no container engine. Everything that runs in one ends with it.
#
#   hosts.sh up N            a network, machines h1 to hN (NET.11 ...) and "laptop" (NET.254)
#   hosts.sh add HOST [IP]   one more machine, such as h7, or ip-10-77-0-7 as AWS calls NET.7; IP is a second address
#   hosts.sh remove HOST     power off in silence, and throw the machine and its disk away
#   hosts.sh sh HOST CMD...  run CMD in HOST
#   hosts.sh kill HOST       power off in silence: cut its link, then SIGKILL its first process, and so all of them
#   hosts.sh crash HOST      SIGKILL only: others see closed connections
#   hosts.sh cut|heal HOST   take its link away, give it back
#   hosts.sh start HOST      power on again: the same address and disk
#   hosts.sh down            all away
#
# HOSTS_DIR    folder for the state of all this (required). If there, what is below image/ in it is on all hosts' disks
#              from the beginning, and HOST.pub is the key that opens HOST, instead of key.pub
# HOSTS_NET    first three numbers of the addresses, default 10.77.0
# HOSTS_HUB    addresses that the network itself answers at; hosts then have a route to everywhere
# HOSTS_HIDE   folder of this machine that no host sees, such as a checkout
# HOSTS_BIND   folders of this machine that all hosts see all the same, such as a virtual environment in it
# HOSTS_PATH   PATH in the hosts; default: this shell's
set -u
DIR=${HOSTS_DIR:?set HOSTS_DIR to a folder}
NET=${HOSTS_NET:-10.77.0}
PREFIX=seg-$(basename "$(dirname "$DIR")")-$(basename "$DIR") # two test runs at a time have namespaces of their own
SHARED=$DIR/shared # seen by all hosts as /shared: the network file system

number() { case $1 in laptop) echo 254 ;; ip-*) echo "${1##*-}" ;; h*) echo $((10 + ${1#h})) ;; esac; }
address() { echo "$NET.$(number "$1")"; }

connect() {
  local host=$1 second=${2:-} port
  port=v$(number "$host")
  ip netns add "$PREFIX-$host"
  ip -n "$PREFIX-hub" link add "$port" type veth peer name eth0 netns "$PREFIX-$host"
  ip -n "$PREFIX-hub" link set "$port" master br0 up
  ip -n "$PREFIX-$host" addr add "$(address "$host")/24" dev eth0
  ip -n "$PREFIX-$host" link set eth0 up
  ip -n "$PREFIX-$host" link set lo up
  [ -z "${HOSTS_HUB:-}" ] || ip -n "$PREFIX-$host" route add default dev eth0
  [ -z "$second" ] || ip -n "$PREFIX-$host" addr add "$second/32" dev eth0
}

boot() {
  local host=$1 disk=$DIR/$1
  if ! mountpoint -q "$disk"; then
    mkdir -p "$disk" && mount -t tmpfs -o size=3g tmpfs "$disk" && (cd "$disk" && mkdir upper work root home)
  fi
  ip -n "$PREFIX-hub" link set "v$(number "$host")" up
  setsid ip netns exec "$PREFIX-$host" unshare --pid --mount --uts --ipc --fork --kill-child \
    bash "$0" init "$host" >"$DIR/$host.log" 2>&1 </dev/null &
  echo $! >"$DIR/$host.outer"
  for _ in $(seq 100); do
    ip netns exec "$PREFIX-$host" bash -c "</dev/tcp/$(address "$host")/22" 2>/dev/null && break
    sleep .1
  done
  pgrep -P "$(cat "$DIR/$host.outer")" >"$DIR/$host.pid" # the first process of the host, as seen from outside
}

init() { # runs as the first process of the host
  local host=$1 disk=$DIR/$1 root=$DIR/$1/root key=$DIR/key.pub folder
  mount --make-rprivate /
  mount -t overlay overlay -o "lowerdir=/,upperdir=$disk/upper,workdir=$disk/work" "$root"
  mount -t proc proc "$root/proc"
  mount --rbind /sys "$root/sys"
  mount --rbind /dev "$root/dev"
  mount -t tmpfs -o size=300m tmpfs "$root/dev/shm"
  mount -t tmpfs tmpfs "$root/run" && mkdir -p "$root/run/sshd"
  mount -t tmpfs -o size=2g tmpfs "$root/tmp" && chmod 1777 "$root/tmp"
  mount --bind "$disk/home" "$root$HOME" # nothing of the real home is seen
  [ -z "${HOSTS_HIDE:-}" ] || mount -t tmpfs tmpfs "$root$HOSTS_HIDE"
  for folder in ${HOSTS_BIND:-}; do mkdir -p "$root$folder" && mount --bind "$folder" "$root$folder"; done
  mkdir -p "$root/shared" "$root$HOME/.ssh" && mount --bind "$SHARED" "$root/shared"
  [ ! -d "$DIR/image" ] || cp -rPn "$DIR/image/." "$root/"
  [ ! -f "$DIR/$host.pub" ] || key=$DIR/$host.pub
  chmod 700 "$root$HOME" "$root$HOME/.ssh" && cp "$key" "$root$HOME/.ssh/authorized_keys"
  [ "$host" != laptop ] || install -m 600 "$DIR/key" "$root$HOME/.ssh/cluster_key"
  hostname "$host" && printf '127.0.0.1 localhost\n%s %s\n' "$(address "$host")" "$host" >"$root/etc/hosts"
  : >"$root/etc/resolv.conf" && : >"$root/etc/motd"
  [ -f "$root/etc/ssh/host_key" ] || ssh-keygen -q -t ed25519 -N '' -f "$root/etc/ssh/host_key"
  printf '%s\n' 'HostKey /etc/ssh/host_key' 'PermitRootLogin prohibit-password' 'PasswordAuthentication no' \
    'UsePAM no' 'PrintMotd no' 'PrintLastLog no' 'PidFile none' >"$root/etc/ssh/hosts_config"
  cd "$root" && mkdir -p .old && pivot_root . .old && cd / && umount -l /.old && ulimit -n 20000 || exit 1
  exec env -i HOME="$HOME" USER=root LANG=C.UTF-8 PATH="${HOSTS_PATH:-$PATH}" \
    bash -c '/usr/sbin/sshd -D -e -f /etc/ssh/hosts_config & while :; do sleep 3600 & wait $!; done'
}

end() {
  [ -s "$DIR/$1.pid" ] && kill -9 "$(cat "$DIR/$1.pid")"
  rm -f "$DIR/$1.pid"
}

case $1 in
  init) init "$2" ;;
  up)
    mkdir -p "$SHARED"
    [ -f "$DIR/key" ] || ssh-keygen -q -t ed25519 -N '' -C cluster -f "$DIR/key"
    ip netns add "$PREFIX-hub"
    ip -n "$PREFIX-hub" link add br0 type bridge
    ip -n "$PREFIX-hub" link set lo up
    ip -n "$PREFIX-hub" link set br0 up
    for address in ${HOSTS_HUB:-}; do ip -n "$PREFIX-hub" addr add "$address" dev br0; done
    for host in laptop $(seq -f h%g "$2"); do connect "$host" && boot "$host"; done
    ;;
  sh)
    host=$2
    shift 2
    exec nsenter -t "$(cat "$DIR/$host.pid")" --all env -i HOME="$HOME" USER=root LANG=C.UTF-8 TERM=xterm \
      PATH="${HOSTS_PATH:-$PATH}" "$@"
    ;;
  add) connect "$2" "${3:-}" && boot "$2" ;;
  remove)
    ip -n "$PREFIX-hub" link del "v$(number "$2")" # first, so that the number can be given to another at once
    end "$2"
    ip netns del "$PREFIX-$2"
    umount -l "$DIR/$2"
    ;;
  start) boot "$2" ;;
  cut) ip -n "$PREFIX-hub" link set "v$(number "$2")" down ;;
  heal) ip -n "$PREFIX-hub" link set "v$(number "$2")" up ;;
  crash) end "$2" ;;
  kill) ip -n "$PREFIX-hub" link set "v$(number "$2")" down && end "$2" ;;
  down)
    for file in "$DIR"/*.pid; do [ -e "$file" ] && end "$(basename "$file" .pid)"; done
    sleep .5
    for name in $(ip netns list | awk '{print $1}' | grep "^$PREFIX-"); do ip netns del "$name"; done
    for disk in "$DIR"/laptop "$DIR"/h* "$DIR"/ip-*; do mountpoint -q "$disk" && umount -l "$disk"; done
    true
    ;;
  *) sed -n '2,25p' "$0" && exit 2 ;;
esac
