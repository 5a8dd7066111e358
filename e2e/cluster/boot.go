package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"text/template"
	"time"

	core "k8s.io/api/core/v1"
	storage "k8s.io/api/storage/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	nodeName    = "node-0"
	nodeAddress = "192.0.2.10" // TEST-NET-1: can be nobody's real address
	podGateway  = "10.244.0.1" // the bridge of the pods; DNS listens here
	podNetwork  = "10.244.0.0/16"
	services    = "10.96.0.0/16"
	apiService  = "10.96.0.1"
	dnsDomain   = "cluster.local"
	patience    = 90 * time.Second
)

//go:embed conf
var configuration embed.FS

// cluster is one start of the components below dir, inside the namespaces that `init` made.
type cluster struct {
	dir    string
	logs   string
	pods   bool       // a node runs pods; without it there is the API server and its controllers
	failed chan error // a component that ended; none should while the command runs
}

// boot starts every component, waits until a pod could be served, and runs the command with a kubeconfig.
func boot(args []string) int {
	if len(args) < 3 {
		return usage()
	}
	signal.Notify(make(chan os.Signal, 1), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	c := &cluster{
		dir: args[1], logs: os.Getenv("KIMI_CLUSTER_LOGS"), failed: make(chan error, 16),
		pods: os.Getenv("KIMI_CLUSTER") != "control-plane",
	}
	if c.logs == "" {
		c.logs = c.path("logs")
	}
	begin := time.Now()
	if err := c.start(); err != nil {
		c.printLogs(25, anyLine)
		return fail("%v", err)
	}
	fmt.Fprintf(os.Stderr, "cluster: ready after %.1f s\n", time.Since(begin).Seconds())

	command := exec.Command(args[2], args[3:]...)
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, os.Stdout, os.Stderr
	command.Env = append(os.Environ(), "KUBECONFIG="+c.path("admin.kubeconfig"), "KIMI_NODE_IP="+nodeAddress)
	if err := command.Start(); err != nil {
		return fail("%v", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	select {
	case err := <-c.failed:
		c.printLogs(25, anyLine)
		return fail("%v while the command was running", err)
	case err := <-ended:
		if err != nil {
			c.printLogs(5, errorLine)
		}
	}
	return exitCode(command.ProcessState.Sys().(syscall.WaitStatus))
}

func (c *cluster) path(name string) string { return filepath.Join(c.dir, name) }

func (c *cluster) start() error {
	if err := c.network(); err != nil {
		return err
	}
	if err := c.credentials(); err != nil {
		return err
	}
	if err := c.configure(); err != nil {
		return err
	}
	if !c.pods {
		if err := c.controlPlane(); err != nil {
			return err
		}
		return c.accounts()
	}
	for _, path := range cgroupPaths(filepath.Base(c.dir)) {
		if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
	}
	if err := c.run("containerd", "containerd", "--config", c.path("containerd.toml")); err != nil {
		return err
	}
	if err := c.controlPlane(); err != nil {
		return err
	}
	images := make(chan error, 1)
	go func() { images <- c.loadImages() }()
	if err := c.until("containerd", func() error { return c.ctr("version") }); err != nil {
		return err
	}
	if err := c.node(); err != nil {
		return err
	}
	if err := c.ready(); err != nil {
		return err
	}
	return <-images
}

// network makes the node's own address, a route that leads nowhere (the API server wants a default one), and the
// bridge that the CNI plugin will attach pods to, because DNS must listen on it before the first pod.
func (c *cluster) network() error {
	for _, line := range []string{
		"link set lo up",
		"link add node0 type bridge",
		"address add " + nodeAddress + "/24 dev node0",
		"link set node0 up",
		"route add default dev node0",
		"link add pods0 type bridge",
		"address add " + podGateway + "/16 dev pods0",
		"link set pods0 up",
	} {
		if output, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", line, err, output)
		}
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644); err != nil {
		return err
	}
	// Without it a pod's answer to its neighbour skips the NAT of the Service that it was asked through.
	err := os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-iptables", []byte("1"), 0o644)
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("the kernel lacks br_netfilter: try `modprobe br_netfilter`")
	}
	return err
}

// configure writes the files below conf/ with this cluster's paths and addresses in them.
func (c *cluster) configure() error {
	plugins := "/usr/lib/cni" // Debian
	if _, err := os.Stat(plugins); err != nil {
		plugins = "/opt/cni/bin" // everybody else
	}
	values := map[string]string{
		"Dir": c.dir, "Cgroup": "/" + filepath.Base(c.dir), "Plugins": plugins, "PodGateway": podGateway,
		"PodNetwork": podNetwork, "Domain": dnsDomain, "NodeAddress": nodeAddress,
	}
	templates, err := template.ParseFS(configuration, "conf/*")
	if err != nil {
		return err
	}
	for _, path := range []string{c.path("cni"), c.path("dns"), c.path("volumes"), c.logs} {
		if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
	}
	for file, target := range map[string]string{
		"containerd.toml": "containerd.toml", "kubelet.yaml": "kubelet.yaml",
		"pods.conflist": "cni/pods.conflist", "Corefile": "dns/Corefile",
	} {
		out, err := os.Create(c.path(target))
		if err != nil {
			return err
		}
		if err := errors.Join(templates.ExecuteTemplate(out, file, values), out.Close()); err != nil {
			return err
		}
	}
	return nil
}

func (c *cluster) controlPlane() error {
	err := c.run("etcd", "", "--data-dir", c.path("etcd"), "--unsafe-no-fsync",
		"--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379",
		"--listen-peer-urls=http://127.0.0.1:2380")
	if err != nil {
		return err
	}
	err = c.run("kube-apiserver", "", "--etcd-servers=http://127.0.0.1:2379", "--advertise-address="+nodeAddress,
		"--service-cluster-ip-range="+services, "--allow-privileged",
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
		"--client-ca-file="+c.path("ca.crt"),
		"--tls-cert-file="+c.path("kube-apiserver.crt"), "--tls-private-key-file="+c.path("kube-apiserver.key"),
		// The credential for logs, exec and port-forward, and how to find the kubelet for them.
		"--kubelet-client-certificate="+c.path("admin.crt"), "--kubelet-client-key="+c.path("admin.key"),
		"--kubelet-preferred-address-types=InternalIP",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file="+c.path("service-accounts.pub"),
		"--service-account-signing-key-file="+c.path("service-accounts.key"))
	if err != nil {
		return err
	}
	client, err := c.client()
	if err != nil {
		return err
	}
	if err := c.until("the API server", func() error {
		return client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(context.Background()).Error()
	}); err != nil {
		return err
	}
	controllers := "*"
	if !c.pods {
		// Nodes without a kubelet say nothing, and must not count as lost for that.
		controllers = "*,-node-lifecycle-controller"
	}
	err = c.run("kube-controller-manager", "", "--kubeconfig="+c.path("kube-controller-manager.kubeconfig"),
		"--leader-elect=false", "--controllers="+controllers, "--use-service-account-credentials", "--root-ca-file="+c.path("ca.crt"),
		// At the default rate it takes four seconds of waiting to get a token for each controller.
		"--kube-api-qps=200", "--kube-api-burst=200",
		"--service-account-private-key-file="+c.path("service-accounts.key"))
	if err != nil {
		return err
	}
	if !c.pods {
		return nil
	}
	return c.run("kube-scheduler", "", "--kubeconfig="+c.path("kube-scheduler.kubeconfig"), "--leader-elect=false")
}

func (c *cluster) node() error {
	for _, component := range [][]string{
		{"kubelet", "--config=" + c.path("kubelet.yaml"), "--kubeconfig=" + c.path("kubelet.kubeconfig"),
			"--root-dir=" + c.path("kubelet"), "--hostname-override=" + nodeName, "--node-ip=" + nodeAddress},
		{"kube-proxy", "--kubeconfig=" + c.path("kube-proxy.kubeconfig"), "--hostname-override=" + nodeName,
			"--cluster-cidr=" + podNetwork,
			// These sysctls belong to the machine, not to a network namespace: zero leaves them alone.
			"--conntrack-max-per-core=0", "--conntrack-tcp-timeout-established=0", "--conntrack-tcp-timeout-close-wait=0"},
		{"coredns", "-conf", c.path("dns/Corefile")},
		{"local-provisioner", "--kubeconfig=" + c.path("admin.kubeconfig"), "--root=" + c.path("volumes")},
	} {
		if err := c.run(component[0], "", component[1:]...); err != nil {
			return err
		}
	}
	return nil
}

// ready returns when a pod with a volume and a name would run: the rest of the harness has no waiting of its own.
func (c *cluster) ready() error {
	client, err := c.client()
	if err != nil {
		return err
	}
	ctx := context.Background()
	late := storage.VolumeBindingWaitForFirstConsumer
	if _, err := client.StorageV1().StorageClasses().Create(ctx, &storage.StorageClass{
		ObjectMeta: meta.ObjectMeta{
			Name: "local", Annotations: map[string]string{"storageclass.kubernetes.io/is-default-class": "true"},
		},
		Provisioner:       provisionerName,
		VolumeBindingMode: &late,
	}, meta.CreateOptions{}); err != nil {
		return err
	}
	if err := c.until("the node", func() error {
		node, err := client.CoreV1().Nodes().Get(ctx, nodeName, meta.GetOptions{})
		if err != nil {
			return err
		}
		for _, condition := range node.Status.Conditions {
			if condition.Type == core.NodeReady && condition.Status != core.ConditionTrue {
				return errors.New(condition.Message)
			}
		}
		// The node controller takes this taint off some seconds later; until then no pod is scheduled.
		if len(node.Status.Conditions) == 0 || len(node.Spec.Taints) > 0 {
			return fmt.Errorf("taints %v", node.Spec.Taints)
		}
		return nil
	}); err != nil {
		return err
	}
	if err := c.until("cluster DNS", func() error {
		_, err := net.LookupHost("kubernetes.default.svc." + dnsDomain)
		return err
	}); err != nil {
		return err
	}
	return c.accounts()
}

// accounts returns when a namespace has its default service account, without which no pod is admitted.
func (c *cluster) accounts() error {
	client, err := c.client()
	if err != nil {
		return err
	}
	return c.until("the default service account", func() error {
		_, err := client.CoreV1().ServiceAccounts("default").Get(context.Background(), "default", meta.GetOptions{})
		return err
	})
}

func (c *cluster) client() (*kubernetes.Clientset, error) {
	config, err := clientcmd.BuildConfigFromFlags("", c.path("admin.kubeconfig"))
	if err != nil {
		return nil, err
	}
	return kubernetes.NewForConfig(config)
}

// loadImages gives containerd the archives in KIMI_IMAGES; with-cluster.sh has put the sandbox image among them.
func (c *cluster) loadImages() error {
	if err := c.until("containerd", func() error { return c.ctr("version") }); err != nil {
		return err
	}
	for _, archive := range strings.Fields(os.Getenv("KIMI_IMAGES")) {
		if err := c.ctr("images", "import", archive); err != nil {
			return fmt.Errorf("image %s: %w", archive, err)
		}
	}
	return nil
}

func (c *cluster) ctr(args ...string) error {
	args = append([]string{"--address", c.path("containerd.sock"), "--namespace", "k8s.io"}, args...)
	if output, err := exec.Command("ctr", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, output)
	}
	return nil
}

// run starts a component; program is "" for those that are part of this binary.
func (c *cluster) run(name, program string, args ...string) error {
	command := exec.Command(program, args...)
	if program == "" {
		command = self(name, args...)
	}
	log, err := os.Create(filepath.Join(c.logs, name+".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	command.Stdout, command.Stderr = log, log
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C in a shell run as the command is not for them
	if err := command.Start(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	go func() { c.failed <- fmt.Errorf("%s ended: %v", name, command.Wait()) }()
	return nil
}

// until repeats check until it succeeds, a component ends or patience does.
func (c *cluster) until(what string, check func() error) error {
	deadline := time.After(patience)
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case failed := <-c.failed:
			return failed
		case <-deadline:
			return fmt.Errorf("%s is not ready after %v: %w", what, patience, err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

var (
	anyLine = regexp.MustCompile(``)
	// klog, containerd, etcd and CoreDNS in that order
	errorLine = regexp.MustCompile(`^[EF]\d{4} |level=(error|fatal)|"level":"(error|fatal)"|^\[(ERROR|FATAL)\]`)
)

// printLogs shows the last lines of every component's log that match.
func (c *cluster) printLogs(lines int, match *regexp.Regexp) {
	logs, _ := filepath.Glob(filepath.Join(c.logs, "*.log"))
	for _, path := range logs {
		text, _ := os.ReadFile(path)
		found := []string{}
		for line := range strings.Lines(string(text)) {
			if match.MatchString(line) {
				found = append(found, line)
			}
		}
		if len(found) == 0 {
			continue
		}
		fmt.Fprintf(os.Stderr, "--- %s\n", filepath.Base(path))
		for _, line := range found[max(0, len(found)-lines):] {
			fmt.Fprintf(os.Stderr, "%.240s\n", strings.TrimRight(line, "\n"))
		}
	}
}
