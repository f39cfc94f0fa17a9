# The front door. `make` alone lists what there is.

SHELL := /bin/bash
.DEFAULT_GOAL := help

# Kept between builds and outside git: Kubernetes, tools, base images. Another folder may be named.
export KINDLING_CACHE ?= $(CURDIR)/.cache
# Options of `make image` are those of image/bake, see its --help: make hands on what it is given, and an `export` here would
# make an empty text of what nobody gave.
export DISTRO ?= ubuntu

KINDLING := target/release/kindling
DEMO := build/demo

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  Options of 'make image', such as: make image DISTRO=debian SSH_KEY=~/.ssh/id_ed25519.pub"
	@image/bake --help | grep -E '^  [A-Z_]+=|^ {20}'


.PHONY: demo
demo: build ## A control plane and a worker behind a VIP, from nothing to Ready; DRIVER=qemu|machines (default: QEMU where KVM works)
	tests/demo $(or $(DRIVER),auto)

.PHONY: demo-down
demo-down: ## Stop the demo's machines and remove them
	$(KINDLING) down --cluster $(DEMO)/cluster.toml --state $(DEMO)/state

.PHONY: demo-ha
demo-ha: build ## The lecture's topology in machines: three control planes, two load balancers, a worker (root)
	tests/demo-ha

.PHONY: demo-ha-down
demo-ha-down: ## Stop the HA demo's machines and remove them
	$(KINDLING) down --cluster $(DEMO)-ha/cluster.toml --state $(DEMO)-ha/state

.PHONY: build
build: ## The kindling binary: target/release/kindling
	image/cargo build --release --locked

.PHONY: image
image: build ## The node image: build/image/DISTRO/kindling.{qcow2,raw}
	image/bake

.PHONY: ova
ova: image ## The image for vSphere: build/image/DISTRO/kindling.{ova,ovf,vmdk}
	image/ova

.PHONY: test
test: ## Unit tests, the sealed disk in QEMU, keepalived, haproxy and etcd in namespaces, real clusters in machines
	tests/run

.PHONY: e2e
e2e: build test-image ## The real cluster once more, in QEMU, from the baked disk: two machines, one where there is no KVM
	tests/e2e qemu

.PHONY: e2e-ha
e2e-ha: build test-image ## Three control planes in QEMU, from the baked disk, powered on one after the other
	tests/e2e qemu ha

.PHONY: e2e-faults
e2e-faults: build test-image ## A full disk and a wrong clock in QEMU: the nodes say so, and are Ready once it is mended
	tests/e2e qemu faults

.PHONY: e2e-operator
e2e-operator: build test-tree ## What takes long of the operator's day: libvirt, later nodes, certificates that are renewed (root)
	tests/libvirt
	tests/ha later
	tests/ha direct form certs

.PHONY: e2e-image
e2e-image: build test-image ## The disk in QEMU: sealed, updated, rolled back, under Secure Boot, with docker; baked twice to the same bytes, with an operator's options, from packages
	tests/sealed
	tests/update
	tests/update control-plane
	tests/secure-boot
	tests/image-twice
	tests/kubernetes/check-same
	tests/image-options
	tests/image-apt
	TEST_IMAGE=build/image/apt tests/e2e machines load-balancer
	tests/e2e qemu docker

.PHONY: matrix
matrix: build ## Every supported minor of Kubernetes in machines, through a power cut, a lost control plane, renewed certificates: a table (root)
	tests/matrix $(VERSIONS)

.PHONY: chaos
chaos: build test-tree ## N=3 formations with random faults, of the seeds SEED=1, ...; in machines (root)
	tests/chaos $(or $(N),3) $(or $(SEED),1)

.PHONY: bench
bench: build test-image ## The figures, beside plain kubeadm by script: WHAT="demo image simulation formation vip" RUNS=3
	tests/bench

.PHONY: lint
lint: ## rustfmt, clippy, shellcheck, the dependencies' licences and advisories; changes nothing
	tests/lint

.PHONY: clean
clean: ## Remove what was built, and clusters that run of it; what is kept in KINDLING_CACHE stays
	@for state in build/*/state; do [ ! -d "$$state" ] || { [ -x target/release/kindling ] || { echo "$$state may be of a running cluster, which needs target/release/kindling to be removed: make build, or remove that folder" >&2; exit 1; }; target/release/kindling down --cluster "$${state%/state}/cluster.toml" --state "$$state" || exit 1; }; done
	rm -rf build target

# The image that the tests and the demo boot: Debian 13 with the Kubernetes that tests/kubernetes/build makes.
.PHONY: test-image
test-image: build
	tests/image

# Without its disk, which only QEMU needs.
.PHONY: test-tree
test-tree: build
	TREE_ONLY=1 tests/image
