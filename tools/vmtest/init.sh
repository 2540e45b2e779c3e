#!/bin/busybox sh
# The first process in the machine: mounts, modules, the command, results. If it dies, the kernel panics and QEMU ends.
# The kernel's console is ttyS0; what the command prints goes to ttyS1, unmixed. The results are a tar archive written
# straight to the disk.
set -e
/bin/busybox --install -s /bin
export PATH=/bin HOME=/root PYTHONPATH=/gmemlab PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1

mkdir -p /proc /sys /dev /tmp /run /root /results/files
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/shm
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
mount -t tracefs tracefs /sys/kernel/tracing
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for controller in memory hugetlb; do
    ! grep -qw $controller /sys/fs/cgroup/cgroup.controllers || echo +$controller >/sys/fs/cgroup/cgroup.subtree_control
done
for module in /modules/*.ko; do
    [ ! -e "$module" ] || insmod "$module"
done

cut -d' ' -f1 /proc/uptime >/results/begin
stty -F /dev/ttyS1 raw
cd /results/files
status=0
sh /command </dev/null >/dev/ttyS1 2>&1 || status=$?
cut -d' ' -f1 /proc/uptime >/results/end
echo $status >/results/status
tar -c -f /dev/vda -C /results .
sync
reboot -f
