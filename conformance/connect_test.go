package main

import (
	"reflect"
	"strings"
	"testing"
)

const connectReport = `Computed 374 test case permutation(s) across 1 server configuration(s).
FAILED: Basic/HTTPVersion:2/TLS:false/unary/success:
	actual error {code: 14} does not match
	expected code 0
INFO: gRPC Unexpected Requests/unary/no-request failed (as expected):
	actual error {code: 2}
FAILED: gRPC Unexpected Requests/unary/multiple-requests was expected to fail but did not

Total cases: 374
371 passed, 2 failed
(Another 1 failed as expected due to being known failures/flakes.)
`

func TestTallyReadsTheConnectReport(t *testing.T) {
	var got tally
	if err := got.readConnect(connectReport); err != nil {
		t.Fatal(err)
	}
	want := tally{
		passed: 371,
		failed: []note{
			{"Basic/HTTPVersion:2/TLS:false/unary/success", "actual error {code: 14} does not match\nexpected code 0\n"},
			{"gRPC Unexpected Requests/unary/multiple-requests", "was expected to fail (skips.txt), and passed"},
		},
		skipped: []note{{"gRPC Unexpected Requests/unary/no-request", "actual error {code: 2}\n"}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
}

func TestTallyPassesAnAnswerThatTheClientGaveUpReading(t *testing.T) {
	const half = "\tconnect error JSON: unexpected end of JSON input\n"
	for report, failed := range map[string]int{
		"FAILED: Timeouts/HTTPVersion:2/TLS:false/unary:\n" + half:                                0,
		"FAILED: Timeouts/HTTPVersion:2/TLS:false/unary:\n" + half + "\tactual error {code: 1}\n": 1,
		"FAILED: Errors/HTTPVersion:2/TLS:false/unary:\n" + half:                                  1,
	} {
		var got tally
		if err := got.readConnect(report + "\n373 passed, 1 failed\n"); err != nil {
			t.Fatal(err)
		}
		if len(got.failed) != failed || got.cases() != 374 {
			t.Errorf("%q: got %+v, want %d failed", report, got, failed)
		}
	}
}

func TestTallyRefusesAConnectReportThatDoesNotAddUp(t *testing.T) {
	for name, report := range map[string]string{
		"no totals":       "fatal: cannot start\n",
		"unnamed failure": strings.Replace(connectReport, "371 passed, 2 failed", "370 passed, 3 failed", 1),
	} {
		var got tally
		if err := got.readConnect(report); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

func TestUnansweredNamesTheCasesThatHang(t *testing.T) {
	got := unanswered("Sending request for \"a/b\"...\nSending request for \"c d\"...\nReceived response for \"a/b\"...\n")
	if want := []string{"c d"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
