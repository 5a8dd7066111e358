// Command cluster is a whole Kubernetes in one binary: the first argument names the component to run, and `up`
// starts all of them in private namespaces around a command. It is a test harness: it knows nothing of the operator.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"          // the json log format
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // client metrics
	_ "k8s.io/component-base/metrics/prometheus/version"  // the version metric
	kubectl "k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

var components = map[string]func(args []string) int{
	"etcd":                    func(args []string) int { etcdmain.Main(args); return 0 },
	"kube-apiserver":          func([]string) int { return cli.Run(apiserver.NewAPIServerCommand()) },
	"kube-controller-manager": func([]string) int { return cli.Run(controllers.NewControllerManagerCommand()) },
	"kube-scheduler":          func([]string) int { return cli.Run(scheduler.NewSchedulerCommand()) },
	"kubelet":                 func([]string) int { return cli.Run(kubelet.NewKubeletCommand(context.Background())) },
	"kube-proxy":              func([]string) int { return cli.Run(proxy.NewProxyCommand()) },
	"kubectl":                 runKubectl,
	"coredns":                 runDNS,
	"local-provisioner":       runProvisioner,
	"up":                      up,
	"init":                    initialise,
	"boot":                    boot,
	"reap":                    reap,
}

// A component is named by the file name that it was called by (bin/kubectl is a link to this binary) or by the
// first argument. Its own flags follow, and it must see them where its flag parser looks: in os.Args[1:].
func main() {
	name := filepath.Base(os.Args[0])
	if _, found := components[name]; !found && len(os.Args) > 1 {
		name = os.Args[1]
		os.Args = append([]string{name}, os.Args[2:]...)
	}
	run, found := components[name]
	if !found {
		os.Exit(usage())
	}
	os.Exit(run(os.Args))
}

func usage() int {
	fmt.Fprintln(os.Stderr, "usage: cluster up COMMAND ARGUMENTS... | cluster COMPONENT FLAGS...")
	return 2
}

func runKubectl([]string) int {
	if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
		util.CheckErr(err) // prints it the way kubectl does, and exits
	}
	return 0
}
