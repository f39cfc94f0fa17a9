# shellcheck shell=bash
# The main package of a program whose own has parts that a test cluster cannot use, and that cost minutes to compile. Read by
# programs.sh and pin.

# main_module NAME: the module of such a program; nothing for the others.
main_module() {
	case $1 in
	coredns) echo github.com/coredns/coredns ;;
	flannel) echo github.com/flannel-io/flannel ;;
	esac
}

# main_of NAME FOLDER: main.go on stdout, from the module's sources in FOLDER.
main_of() {
	case $1 in
	coredns)
		# As CoreDNS documents it for those who choose its plugins: all, without those that ask clouds for records or
		# keys, and without traces, whose SDKs are a third of all packages.
		printf 'package main\n\nimport (\n\t"github.com/coredns/coredns/coremain"\n\n'
		grep -E '^\s_ "github.com/coredns/coredns/plugin/' "$2/core/plugin/zplugin.go" | grep -vE '/(azure|clouddns|dnssec|route53|trace)"$'
		printf ')\n\nfunc main() { coremain.Run() }\n'
		;;
	flannel)
		# Without the backends that are C or a cloud's.
		sed -E '\,^\s_ "github.com/flannel-io/flannel/pkg/backend/(alivpc|awsvpc|tencentvpc|udp)"$,d' "$2/main.go"
		;;
	esac
}
