"""Runs a program on another Linux: a whole machine under QEMU's software emulation, with KVM inside it.

``python -m tools.vmtest 7.3`` finds the newest Debian kernel package of that version, boots it with BusyBox, Python and the
part of gmemlab that needs the standard library only, records conform's suites there, and judges the recordings here.
``7.3-sw-protected`` is the same with a kernel built from Debian's source, which offers software-protected VMs.
The pattern is drgn's vmtest.

=============== ==============================================================
``host``        this machine: its tools, messages, and what is kept between runs
``packages``    Debian packages, through an apt of vmtest's own
``debian``      a kernel, and Python, from Debian packages
``build``       a kernel from Debian's source
``initramfs``   what the machine finds when it starts; ``cpio`` packs it
``machine``     QEMU: start, wait, results
=============== ==============================================================
"""
