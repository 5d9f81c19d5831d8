package faults

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// gateway is the program under test, as a process.
type gateway struct {
	t       *testing.T
	binary  string
	dir     string // its data, for the command line too
	address string // of the one port
	admin   string
	log     string // a file
	flags   []string
	at      *machine // nil: where the test is
	cmd     *exec.Cmd
	ended   chan struct{}
}

// startGateway starts a node that has no routes yet, with further flags of serve.
func startGateway(t *testing.T, flags ...string) *gateway {
	t.Helper()
	binary, err := program()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(workDir, "node-")
	if err != nil {
		t.Fatal(err)
	}
	g := &gateway{t: t, binary: binary, dir: dir, address: gatewayAddress(), admin: freeAddress(t), log: filepath.Join(dir, "log"), flags: flags}
	g.start()
	t.Cleanup(g.end)
	g.awaitReady()
	return g
}

// start begins the process, for the first time or again, with the same data and log.
func (g *gateway) start() {
	g.t.Helper()
	log, err := os.OpenFile(g.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		g.t.Fatal(err)
	}
	defer log.Close()
	argv := append([]string{"serve", "--data-dir", filepath.Join(g.dir, "data"), "--listen", g.address, "--admin", g.admin}, g.flags...)
	g.cmd = g.at.command(g.binary, argv...)
	g.cmd.Env = append(os.Environ(), "SLUICE_CONFIG="+os.DevNull)
	g.cmd.Stdout, g.cmd.Stderr = log, log
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := g.cmd.Start(); err != nil {
		g.t.Fatal(err)
	}
	cmd, ended := g.cmd, make(chan struct{})
	g.ended = ended
	go func() {
		_ = cmd.Wait() // whoever needs it sees the port closed
		close(ended)
	}()
}

// freeAddress is for the admin port, whose host has to be one that it knows as its own.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (g *gateway) awaitReady() {
	g.t.Helper()
	eventually(g.t, patience, "the gateway is ready", func() bool {
		_, err := g.get("/readyz")
		return err == nil
	})
}

// end lets the gateway drain, shows its log when the scenario has failed, and fails
// it when the gateway had a panic or ended by itself.
func (g *gateway) end() {
	select {
	case <-g.ended:
		g.t.Errorf("the gateway ended by itself: %v", g.cmd.ProcessState)
	default:
		_ = g.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-g.ended:
		case <-time.After(3 * time.Second):
			_ = g.cmd.Process.Kill()
			<-g.ended
		}
	}
	log, err := os.ReadFile(g.log)
	if err != nil {
		g.t.Error(err)
	}
	if bytes.Contains(log, []byte("goroutine ")) || g.t.Failed() {
		g.t.Errorf("log of the gateway, the end of it:\n%s", log[max(0, len(log)-6000):])
	}
}

// sluice runs the command line against this gateway.
func (g *gateway) sluice(stdin string, args ...string) string {
	g.t.Helper()
	out, err := g.try(stdin, args...)
	if err != nil {
		g.t.Fatal(err)
	}
	return out
}

// try is sluice, of which the scenario knows what to do when it fails.
func (g *gateway) try(stdin string, args ...string) (string, error) {
	cmd := g.at.command(g.binary, append(args, "--data-dir", filepath.Join(g.dir, "data"))...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, notes bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &notes
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("sluice %s: %w\n%s%s", strings.Join(args, " "), err, &out, &notes)
	}
	return out.String(), nil
}

// apply declares resources; they are in force when it returns.
func (g *gateway) apply(manifest string) {
	g.t.Helper()
	g.sluice(manifest, "apply", "-f", "-")
}

// get is the answer of the admin port.
func (g *gateway) get(path string) ([]byte, error) {
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true, DialContext: g.at.dial}}
	response, err := client.Get("http://" + g.admin + path)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("get %s: %s", path, response.Status)
	}
	return body, err
}

// metric adds up the series of that name whose labels have all of these texts.
func (g *gateway) metric(name string, labels ...string) float64 {
	g.t.Helper()
	page, err := g.get("/metrics")
	if err != nil {
		g.t.Fatal(err)
	}
	sum := 0.0
	for lines := bufio.NewScanner(bytes.NewReader(page)); lines.Scan(); {
		line := lines.Text()
		end := strings.LastIndexByte(line, ' ')
		if end < 0 || !isSeries(line[:end], name, labels) {
			continue
		}
		value, err := strconv.ParseFloat(line[end+1:], 64)
		if err != nil {
			g.t.Fatalf("metrics line %q: %v", line, err)
		}
		sum += value
	}
	return sum
}

func isSeries(series, name string, labels []string) bool {
	rest, ok := strings.CutPrefix(series, name)
	if !ok || rest != "" && rest[0] != '{' {
		return false
	}
	for _, label := range labels {
		if !strings.Contains(rest, label) {
			return false
		}
	}
	return true
}

// eventually polls until ok, and gives up after the time.
func eventually(t *testing.T, within time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	begin := time.Now()
	for !ok() {
		if time.Since(begin) > within {
			t.Fatalf("not within %v: %s", within, what)
		}
		wait(5 * time.Millisecond)
	}
	return time.Since(begin)
}

// wait is for what a scenario lets happen meanwhile: the load goes on.
func wait(d time.Duration) { time.Sleep(d) } // allow:sleep
