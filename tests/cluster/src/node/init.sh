# The first process in the namespaces of a node. Whatever containerd, kubelet and the network plugins
# write into folders that cannot be configured stays in here, and vanishes with us.
#
# $1 is target/cluster, $2 the folder of the node below it.

set -e
cat /etc/resolv.conf >"$2/resolv.conf"
cd "$1"
for folder in /run /var/lib /var/log; do
    mount -t tmpfs tmpfs "$folder"
done
# Where target/cluster itself was in one of them, it comes back.
if [ ! -d "$2" ]; then
    mkdir -p "$1"
    mount --rbind . "$1"
fi
: >"$2/ready"

trap 'exit 0' TERM
# Processes that lost their parent become our children: wait collects them.
while :; do
    sleep 3600 &
    wait
done
