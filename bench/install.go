package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// packages are the Debian packages of the programs that the benchmark cannot
// do without.
var packages = map[string]string{
	"h2load":  "nghttp2-client",
	"nghttpd": "nghttp2-server",
	"nghttpx": "nghttp2-proxy",
	"nginx":   "nginx",
	"haproxy": "haproxy",
}

// lookTool finds a program, also where servers are and a user's PATH may not
// lead.
func lookTool(name string) (string, error) {
	path, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/sbin", "/usr/local/sbin"} {
		if err == nil {
			break
		}
		path, err = exec.LookPath(filepath.Join(dir, name))
	}
	return path, err
}

// findTools looks the programs up and installs what is missing, when it may.
func findTools(ctx context.Context, names []string, say func(string, ...any)) (map[string]string, error) {
	tools, missing := lookTools(names)
	if len(missing) == 0 {
		return tools, nil
	}
	if err := install(ctx, missing, say); err != nil {
		return nil, err
	}
	if tools, missing = lookTools(names); len(missing) > 0 {
		return nil, fmt.Errorf("still without %s after installing", strings.Join(missing, ", "))
	}
	return tools, nil
}

func lookTools(names []string) (tools map[string]string, missing []string) {
	tools = map[string]string{}
	for _, name := range names {
		path, err := lookTool(name)
		if err != nil {
			missing = append(missing, name)
		}
		tools[name] = path
	}
	return tools, missing
}

// install brings in the packages of the missing programs. They come with their
// services switched on where the machine runs any; README.md says so.
func install(ctx context.Context, missing []string, say func(string, ...any)) error {
	var names []string
	for _, tool := range missing {
		name, ok := packages[tool]
		if !ok {
			return fmt.Errorf("%s is not installed", tool)
		}
		names = append(names, name)
	}
	slices.Sort(names)
	byHand := "apt-get update && apt-get install -y " + strings.Join(names, " ")
	aptGet, err := exec.LookPath("apt-get")
	if err != nil || os.Getuid() != 0 {
		return fmt.Errorf("%s missing: as root on Debian: %s", strings.Join(missing, ", "), byHand)
	}
	say("installing %s", strings.Join(names, " "))
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	steps := [][]string{{"update"}, append([]string{"install", "-y", "--no-install-recommends"}, names...)}
	for _, args := range steps {
		cmd := exec.CommandContext(ctx, aptGet, args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if said, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get %s: %w\n%s\nby hand: %s", args[0], err, said, byHand)
		}
	}
	return nil
}

// raiseOpenFiles lifts the limit of file descriptors to the hard one for the
// children and this process, and tries to lift the hard one, as root may.
func raiseOpenFiles(want uint64) (int, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, err
	}
	if limit.Max < want {
		higher := syscall.Rlimit{Cur: want, Max: want}
		if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &higher) == nil {
			return int(want), nil
		}
	}
	limit.Cur = limit.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, errors.Join(errors.New("raise the limit of open files"), err)
	}
	return int(min(limit.Max, 1<<20)), nil
}
