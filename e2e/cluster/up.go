package main

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// Three processes share the work of `up COMMAND...`, so that nothing is left however it ends:
//
//	up    (the caller's namespaces)  starts the other two and passes on the command's exit status
//	init  (PID 1 of the new ones)    when it dies the kernel kills every process, mount, link and iptables rule inside
//	reap  (a session of its own)     removes what outlives them, once `up` is gone: the cgroups and the directory

func up(args []string) int {
	if len(args) < 2 {
		return usage()
	}
	if os.Geteuid() != 0 {
		return fail("the local cluster needs root: run as root, or set KUBECONFIG to a cluster that you have")
	}
	// Pdeathsig below follows the thread that started the child, not the process: this goroutine must keep its thread.
	runtime.LockOSThread()
	dir, err := os.MkdirTemp("", "kimi-cluster-")
	if err != nil {
		return fail("no directory for the cluster: %v", err)
	}

	reaper := self("reap", dir)
	reaper.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // Ctrl-C must not reach it
	alive, err := reaper.StdinPipe()                        // it closes when this process ends, even by SIGKILL
	if err == nil {
		reaper.Stderr = os.Stderr
		err = reaper.Start()
	}
	if err != nil {
		return fail("cannot start the reaper: %v", err)
	}
	defer func() {
		_ = alive.Close()
		if err := reaper.Wait(); err != nil {
			fail("reaper: %v", err)
		}
	}()

	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	inner := self("init", append([]string{dir}, args[1:]...)...)
	inner.Stdin, inner.Stdout, inner.Stderr = os.Stdin, os.Stdout, os.Stderr
	inner.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
		Pdeathsig:  syscall.SIGKILL,
	}
	if err := inner.Start(); err != nil {
		return fail("cannot make namespaces (is this container privileged?): %v", err)
	}
	go func() {
		<-signals
		_ = inner.Process.Kill()
	}()
	_ = inner.Wait()
	return exitCode(inner.ProcessState.Sys().(syscall.WaitStatus))
}

// initialise is PID 1: it makes the mounts private, then does what an init does, which is to wait for orphans
// (containerd's shims) until the one child that matters ends.
func initialise(args []string) int {
	if len(args) < 3 {
		return usage()
	}
	// Caught, not ignored: ignoring would be inherited by the command. `up` sees the same Ctrl-C and ends us all.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	if err := privateMounts(args[1]); err != nil {
		return fail("mounts: %v", err)
	}
	driver := self("boot", args[1:]...)
	driver.Stdin, driver.Stdout, driver.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := driver.Start(); err != nil {
		return fail("%v", err)
	}
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return fail("wait: %v", err)
		}
		if pid == driver.Process.Pid {
			return exitCode(status)
		}
	}
}

// privateMounts gives /proc, /run and /var to these namespaces alone. The kubelet, CNI and containerd's shims have
// paths in the last two built in, and a half-removed pod must not be found there by the next start.
func privateMounts(dir string) error {
	resolv, err := filepath.EvalSymlinks("/etc/resolv.conf")
	if err != nil {
		resolv = "/etc/resolv.conf"
	}
	upper, work := filepath.Join(dir, "var"), filepath.Join(dir, "var.work")
	for _, path := range []string{upper, work} {
		if err := os.Mkdir(path, 0o755); err != nil {
			return err
		}
	}
	for _, m := range []struct {
		source, target, kind string
		flags                uintptr
		data                 string
	}{
		{"", "/", "", syscall.MS_REC | syscall.MS_PRIVATE, ""},
		{"proc", "/proc", "proc", 0, ""},
		{"tmpfs", "/run", "tmpfs", 0, "mode=755"},
		{"overlay", "/var", "overlay", 0, "lowerdir=/var,upperdir=" + upper + ",workdir=" + work},
	} {
		if err := syscall.Mount(m.source, m.target, m.kind, m.flags, m.data); err != nil {
			return fmt.Errorf("%s: %w", m.target, err)
		}
	}
	// The command resolves Service names like a pod does. Where resolv.conf is a link into /run, its target is gone.
	if err := os.MkdirAll(filepath.Dir(resolv), 0o755); err != nil {
		return err
	}
	file, err := os.OpenFile(resolv, os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	_ = file.Close()
	own := filepath.Join(dir, "resolv.conf")
	text := fmt.Sprintf("nameserver %s\nsearch svc.%s %s\n", podGateway, dnsDomain, dnsDomain)
	if err := os.WriteFile(own, []byte(text), 0o644); err != nil {
		return err
	}
	return syscall.Mount(own, resolv, "", syscall.MS_BIND, "")
}

// reap waits for `up` to end, whichever way, and removes the cgroups and the directory of the cluster.
func reap(args []string) int {
	if len(args) != 2 {
		return usage()
	}
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	_, _ = io.Copy(io.Discard, os.Stdin)
	dir := args[1]
	// The kernel is still killing: a cgroup with a process in it and a directory being written refuse for a moment.
	var err error
	for range 100 {
		if err = removeCgroups(filepath.Base(dir)); err == nil {
			if err = os.RemoveAll(dir); err == nil {
				return 0
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	return fail("left behind after 10 s: %v", err)
}

// cgroupPaths gives the cluster's own cgroup in every hierarchy: one on cgroup v2, one for each controller on v1.
func cgroupPaths(name string) []string {
	const root = "/sys/fs/cgroup"
	if _, err := os.Stat(filepath.Join(root, "cgroup.controllers")); err == nil {
		return []string{filepath.Join(root, name)}
	}
	paths := []string{}
	entries, _ := os.ReadDir(root)
	for _, entry := range entries {
		if entry.IsDir() { // links such as cpu -> cpu,cpuacct are the same hierarchy again
			paths = append(paths, filepath.Join(root, entry.Name(), name))
		}
	}
	return paths
}

func removeCgroups(name string) error {
	for _, root := range cgroupPaths(name) {
		directories := []string{}
		_ = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				directories = append(directories, path)
			}
			return nil
		})
		for i := len(directories) - 1; i >= 0; i-- { // children come after their parents in a walk
			if err := syscall.Rmdir(directories[i]); err != nil && err != syscall.ENOENT {
				return fmt.Errorf("%s: %w", directories[i], err)
			}
		}
	}
	return nil
}

// self is a command that runs another part of this binary.
func self(part string, args ...string) *exec.Cmd {
	command := exec.Command("/proc/self/exe", append([]string{part}, args...)...)
	command.Args[0] = "cluster" // what ps shows
	return command
}

func exitCode(status syscall.WaitStatus) int {
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}

func fail(format string, args ...any) int {
	fmt.Fprintf(os.Stderr, "cluster: "+format+"\n", args...)
	return 1
}
