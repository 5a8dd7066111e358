// Command selftest is the one program of the pods that selftest.sh starts: each route shows one thing that the
// cluster must do. It runs as whatever user the cluster gives it.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"syscall"
)

func main() {
	http.HandleFunc("/name", func(w http.ResponseWriter, _ *http.Request) {
		name, _ := os.Hostname()
		fmt.Fprintln(w, name)
	})
	// A file in the volume, and who could write it.
	http.HandleFunc("/write", func(w http.ResponseWriter, _ *http.Request) {
		if err := os.WriteFile("/data/file", []byte("kept"), 0o644); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		info, _ := os.Stat("/data")
		fmt.Fprintf(w, "uid %d volume-gid %d\n", os.Getuid(), info.Sys().(*syscall.Stat_t).Gid)
	})
	// Another pod, by a Service's name.
	http.HandleFunc("/ask", func(w http.ResponseWriter, r *http.Request) {
		answer, err := http.Get("http://" + r.URL.Query().Get("host") + "/name")
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer answer.Body.Close()
		_, _ = io.Copy(w, answer.Body)
	})
	// More memory than the limit: the kernel must end this process.
	http.HandleFunc("/eat", func(http.ResponseWriter, *http.Request) {
		eaten := [][]byte{}
		for range 1024 {
			block := make([]byte, 1<<20)
			for i := range block {
				block[i] = 1
			}
			eaten = append(eaten, block)
		}
		fmt.Println("not killed after", len(eaten), "MiB")
	})
	fmt.Println("listening")
	fmt.Println(http.ListenAndServe(":8080", nil))
}
