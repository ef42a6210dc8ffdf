#!/bin/bash
# First process of one node. It runs in namespaces of its own (processes, mounts, network, host name), so that whatever the node mounts, bridges or
# filters is gone with it, and no crash can leave it behind. In: the environment set by fullnode.py, and the network cable eth0, which the host plugs in.
set -euo pipefail

mount --make-rshared /                       # pods may ask for mount propagation, within this node
mount -t tmpfs -o mode=755 localcluster /run # sockets and locks of our own
mkdir -p /run/lock /run/localcluster/{bin,node,logs,volumes}
mount --bind "$NODE_DIR" /run/localcluster/node
mount --bind "$LOG_DIR" /run/localcluster/logs
mount --bind "$VOLUME_DIR" /run/localcluster/volumes
for program in $NODE_PROGRAMS; do
    touch "/run/localcluster/bin/${program##*/}"
    mount --bind "$program" "/run/localcluster/bin/${program##*/}"
done
# From here on nothing under the host's /var is seen. The kubelet's and the container logs' folders have fixed names there.
mkdir -p "$NODE_DIR"/var/{tmp,log,lib/kubelet,lib/containerd,lib/cni,lib/localcluster/volumes}
mount --bind "$NODE_DIR/var" /var
mount --bind /run/localcluster/volumes /var/lib/localcluster/volumes
hostname "$NODE_NAME"
# The kubelet sets these for the whole machine, and nobody would set them back: the node gets copies of its own.
mkdir /run/localcluster/tunables
for tunable in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
    copy="/run/localcluster/tunables/${tunable//\//.}"
    cat "/proc/sys/$tunable" >"$copy"
    mount --bind "$copy" "/proc/sys/$tunable"
done

until ip link show dev eth0 >/dev/null 2>&1; do sleep 0.05; done
ip link set lo up
ip link set eth0 up
ip addr add "$NODE_ADDRESS" dev eth0
ip route add default via "$GATEWAY"
while read -r pods via; do
    [ -z "$pods" ] || ip route add "$pods" via "$via"
done <<<"$POD_ROUTES"
echo 1 >/proc/sys/net/ipv4/ip_forward

# A daemon that dies is started again, as an init system would.
keep() {
    local log="/run/localcluster/logs/$NODE_NAME-$1.log"
    shift
    (while :; do
        "$@" >>"$log" 2>&1 </dev/null || true
        sleep 1
    done) &
}

cd /run/localcluster
keep containerd containerd --config /run/localcluster/node/containerd.toml
until ctr version >/dev/null 2>&1; do sleep 0.1; done
ctr --namespace k8s.io images import /run/localcluster/node/pause.tar >/dev/null
keep kubelet /run/localcluster/bin/kubelet --config=/run/localcluster/node/kubelet.yaml \
    --kubeconfig=/run/localcluster/node/kubelet.kubeconfig --hostname-override="$NODE_NAME" \
    --node-ip="${NODE_ADDRESS%/*}" --node-labels="$NODE_LABELS" --root-dir=/var/lib/kubelet
keep kube-proxy /run/localcluster/bin/kube-proxy --kubeconfig=/run/localcluster/node/kube-proxy.kubeconfig \
    --hostname-override="$NODE_NAME" --proxy-mode=iptables --cluster-cidr="$POD_NETWORK" --bind-address="${NODE_ADDRESS%/*}" \
    --metrics-bind-address=127.0.0.1 --healthz-bind-address=127.0.0.1 \
    --conntrack-max-per-core=0 --conntrack-tcp-timeout-established=0 --conntrack-tcp-timeout-close-wait=0
while :; do wait -n || true; done
