package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

var connectTools = []string{"connectconformance", "grpcserver", "referenceserver"}

// connectLimit is for the suite, which waits for a case for ever; it takes seconds.
const connectLimit = 3 * time.Minute

// runConnect lets the Connect conformance suite drive its own grpc-go server
// through the gateway. The suite starts the server under test itself, with
// settings on its standard input: what it starts is the shim.
func runConnect(ctx context.Context, r *rig, s suite) (tally, error) {
	var t tally
	dir, err := os.MkdirTemp(r.dir, "connect-")
	if err != nil {
		return t, err
	}
	kind := connectKinds[s.name]
	if r.opts.direct && kind.protocol == "CONNECT" && kind.server == "grpcserver" {
		return t, errors.New("the suite's grpc-go server does not speak Connect: there is nothing to compare with")
	}
	config := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(config, []byte(kind.config(s.secure)), 0o600); err != nil {
		return t, err
	}
	env := shimEnv(r, dir, kind.server)
	if kind.schema {
		file, err := writeConnectSchema(ctx, dir)
		if err != nil {
			return t, err
		}
		env = append(env, shimSchema+"="+file)
	}
	self, err := os.Executable()
	if err != nil {
		return t, err
	}
	args := []string{"--mode", "server", "--conf", config, "--vv"}
	for _, pattern := range r.opts.skips.patterns(s.name) {
		args = append(args, "--known-failing", pattern)
	}
	args = append(args, "--", self, shimArg)
	ctx, cancel := context.WithTimeout(ctx, connectLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, r.tool("connectconformance"), args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.WaitDelay = stopTimeout // for shims, which share its standard error
	cmd.Stderr = r.log
	out, err := cmd.Output()
	r.log.Write(out)
	if ctx.Err() != nil {
		return t, fmt.Errorf("not done after %s, without an answer to:\n%s", connectLimit, strings.Join(unanswered(string(out)), "\n"))
	}
	if err := t.readConnect(string(out)); err != nil {
		return t, fmt.Errorf("%w\n%s", err, out)
	}
	if err != nil && len(t.failed) == 0 {
		t.fail("exit", err.Error())
	}
	if !r.opts.direct {
		t.readShims(dir, kind)
	}
	return t, nil
}

var (
	connectFailed = regexp.MustCompile(`^FAILED: (.+?)(?::| was expected to fail but did not)$`)
	connectKnown  = regexp.MustCompile(`^INFO: (.+) failed \(as expected\):$`)
	connectTotals = regexp.MustCompile(`(?m)^(\d+) passed, (\d+) failed$`)
)

// readConnect reads the suite's report: a line for each case that failed, in
// spite of or as the allowed ones, its details indented below, and the totals.
func (t *tally) readConnect(report string) error {
	var open *note // the case that the indented lines belong to
	for line := range strings.Lines(report) {
		text := strings.TrimRight(line, "\n")
		switch {
		case connectFailed.MatchString(text):
			t.fail(connectFailed.FindStringSubmatch(text)[1], "")
			open = &t.failed[len(t.failed)-1]
			if strings.HasSuffix(text, "did not") {
				open.detail = "was expected to fail (skips.txt), and passed"
			}
		case connectKnown.MatchString(text):
			t.skip(connectKnown.FindStringSubmatch(text)[1], "")
			open = &t.skipped[len(t.skipped)-1]
		case strings.HasPrefix(text, "\t") && open != nil:
			open.detail += strings.TrimPrefix(text, "\t") + "\n"
		default:
			open = nil
		}
	}
	m := connectTotals.FindStringSubmatch(report)
	if m == nil {
		return fmt.Errorf("connectconformance printed no totals")
	}
	t.passed, _ = strconv.Atoi(m[1])
	if m[2] != strconv.Itoa(len(t.failed)) {
		return fmt.Errorf("connectconformance counted %s failures, its report names %d", m[2], len(t.failed))
	}
	named := len(t.failed)
	t.failed = slices.DeleteFunc(t.failed, halfRead)
	t.passed += named - len(t.failed)
	return nil
}

// halfRead tells a case whose client gave up at its deadline while it was reading the
// answer that says so. The outcome was right; what the suite then holds against the answer
// is that the half of its body is no JSON.
func halfRead(c note) bool {
	return strings.HasPrefix(c.id, "Timeouts/") && strings.TrimSpace(c.detail) == "connect error JSON: unexpected end of JSON input"
}

var connectTraffic = regexp.MustCompile(`(?m)^(Sending request|Received response) for "(.+)"\.\.\.$`)

// unanswered returns the cases that were sent and had not come back.
func unanswered(report string) []string {
	var open []string
	for _, m := range connectTraffic.FindAllStringSubmatch(report, -1) {
		if m[1] == "Sending request" {
			open = append(open, m[2])
			continue
		}
		if i := slices.Index(open, m[2]); i >= 0 {
			open = slices.Delete(open, i, i+1)
		}
	}
	return open
}

// readShims takes over what each shim wrote of its gateway.
func (t *tally) readShims(dir string, kind connectKind) {
	notes, _ := filepath.Glob(filepath.Join(dir, shimNotes))
	if len(notes) == 0 {
		t.fail("gateway", "no shim wrote down how its gateway did")
	}
	for _, path := range notes {
		var n shimNote
		text, err := os.ReadFile(path)
		if err == nil {
			err = json.Unmarshal(text, &n)
		}
		n.add(err)
		for _, fault := range n.Faults {
			t.fail("gateway", fault)
		}
		if err := kind.checkPaths(n); err != nil {
			t.fail("path", err.Error())
		}
	}
}
