# shellcheck shell=bash
# Whether QEMU's machines run on KVM here: the device alone may be there without a processor for it. `kindling up` decides by
# the same three things (agent/src/up/choice.rs).
kvm_works() { [[ -r /dev/kvm && -w /dev/kvm ]] && grep -qwE 'vmx|svm' /proc/cpuinfo; }
