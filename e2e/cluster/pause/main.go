// Command pause holds a pod's namespaces open: it does nothing, reaps orphans and ends when it is told to.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGCHLD)
	for received := range signals {
		if received != syscall.SIGCHLD {
			return
		}
		for pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); err == nil && pid > 0; pid, err = syscall.Wait4(-1, nil, syscall.WNOHANG, nil) {
		}
	}
	os.Exit(1)
}
