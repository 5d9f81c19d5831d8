package cluster

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestRefusalsClassifyLines(t *testing.T) {
	for line, want := range map[string]reason{
		`[DEBUG] memberlist: Stream connection from=10.0.0.1:5`:                                                       "",
		`[ERR] memberlist: Decrypt packet failed: no installed keys could decrypt the message from=10.0.0.1:5`:        wrongKey,
		`[ERR] memberlist: Decrypt packet failed: unsupported encryption version 12 from=10.0.0.1:5`:                  notEncrypted,
		`[ERR] memberlist: failed to receive: encryption is configured but remote state is not encrypted from=a:5`:    notEncrypted,
		`[ERR] memberlist: failed to receive: remote state is encrypted and encryption is not configured from=a:5`:    hereNoKey,
		`[ERR] memberlist: discarding stream with unacceptable label "[DEBUG] no installed keys": from=10.0.0.1:5`:    otherLabel,
		`[ERR] memberlist: failed to receive: remote node state is larger than limit (99999999) from=10.0.0.1:5`:      tooLarge,
		`[ERR] memberlist: Too many pending push/pull requests`:                                                       tooMany,
		`[WARN] memberlist: handler queue full, dropping message (3) from=10.0.0.1:5`:                                 tooMany,
		`[ERR] memberlist: Failed to decode ping request: EOF from=10.0.0.1:5`:                                        unfinished,
		`[ERR] memberlist: msg type (77) not supported from=10.0.0.1:5`:                                               malformed,
		`[WARN] memberlist: Got ping for unexpected node 'abcdefgh' from=10.0.0.1:5`:                                  otherNode,
		`[ERR] memberlist: Push/Pull with abcdefgh failed: dial tcp 10.0.0.1:7946: connect: connection refused`:       unreachable,
		`[WARN] memberlist: Refuting a suspect message (from: abcdefgh)`:                                              "",
		`[INFO] memberlist: Marking abcdefgh as failed, suspect timeout reached (2 peer confirmations)`:               "",
		`[ERR] memberlist: failed to receive: read tcp 10.0.0.1:7946->10.0.0.2:5: i/o timeout from=10.0.0.1:5`:        unfinished,
		`[WARN] memberlist: Was able to connect to abcdefgh over TCP but UDP probes failed, network may be misconfig`: "",
		`something that memberlist has never said`:                                                                    otherTrouble,
	} {
		if got := classify(line); got != want {
			t.Errorf("%s\ngot %q, want %q", line, got, want)
		}
	}
	for line, want := range map[string]string{
		"x from=10.0.0.1:5": "10.0.0.1", "x from=[fd00::1]:5\n": "fd00::1", "x": "", "x from=" + strings.Repeat("y", 1000) + ":1": strings.Repeat("y", 64),
	} {
		if got := fromOf(line); got != want {
			t.Errorf("%q is from %q, want %q", line, got, want)
		}
	}
}

// What memberlist says of one peer that cannot be reached has many shapes.
func TestRefusalsNameAnUnreachablePeerOnce(t *testing.T) {
	var log lines
	r := newRefusals(time.Now, slog.New(slog.NewTextHandler(&log, nil)))
	for _, line := range []string{
		"[ERR] memberlist: Push/Pull with abcdefgh failed: dial tcp 10.0.0.1:7946: connect: connection refused",
		"[ERR] memberlist: Failed fallback TCP ping: abcdefgh: dial tcp 10.0.0.1:7946: i/o timeout",
		"[ERR] memberlist: Failed to send UDP ping: write udp 10.0.0.2:7946->10.0.0.1:7946: sendto: no route to host",
	} {
		r.take(line)
	}
	r.add(unreachable, "10.0.0.1", "send a message: no route to host")
	if n := strings.Count(log.String(), "\n"); n != 1 {
		t.Errorf("%d lines, want 1:\n%s", n, log.String())
	}
	for line, want := range map[string]string{
		"dial tcp [fd00::1]:7946: connect: refused": "fd00::1", "dial tcp: lookup x": "", "->": "", "": "", "->nobody: x": "",
	} {
		if got := towards(line); got != want {
			t.Errorf("%q leads to %q, want %q", line, got, want)
		}
	}
}

func TestRefusalsAreNamedAtAPace(t *testing.T) {
	now := time.Unix(1000, 0)
	var log lines
	r := newRefusals(func() time.Time { return now }, slog.New(slog.NewTextHandler(&log, nil)))
	said := func(what string, want int) {
		t.Helper()
		if got := strings.Count(log.String(), "\n"); got != want {
			t.Errorf("%s: %d lines, want %d:\n%s", what, got, want, log.String())
		}
	}
	memberlist := slog.NewLogLogger(lineHandler{r}, slog.LevelWarn)
	for range 1000 {
		memberlist.Println("[ERR] memberlist: Decrypt packet failed: no installed keys could decrypt the message from=10.0.0.1:5")
	}
	said("a flood from one", 1)
	r.add(wrongKey, "10.0.0.2", "")
	r.add(malformed, "10.0.0.1", "")
	said("others, and other reasons", 3)
	now = now.Add(refusalPace)
	r.sweep()
	said("a minute later", 4)
	if text := log.String(); !strings.Contains(text, `reason=key count=999 from=10.0.0.1 meaning="encrypted with a key`) {
		t.Errorf("log:\n%s", text)
	}
	now = now.Add(refusalPace)
	r.sweep()
	said("nothing since", 4)
	if len(r.lines) != 0 {
		t.Errorf("%d are remembered", len(r.lines))
	}
	for i := range 100 * maxRefusers {
		r.add(wrongKey, fmt.Sprint("10.1.", i/250, ".", i%250), "")
	}
	if len(r.lines) > maxRefusers+1 {
		t.Errorf("%d are remembered", len(r.lines))
	}
	said("very many", 4+maxRefusers+1)
	if got := r.counted(); got["key"] != 1001+100*maxRefusers || got["malformed"] != 1 {
		t.Errorf("counted %v", got)
	}
}
