package wire

import (
	"math"
	"testing"

	grpccodes "google.golang.org/grpc/codes"
)

func TestCodeNamesAreCanonical(t *testing.T) {
	for c := Code(0); c < NumCodes; c++ {
		// grpc-go reads a code's JSON name: the canonical spelling.
		var theirs grpccodes.Code
		if err := theirs.UnmarshalJSON([]byte(`"` + c.String() + `"`)); err != nil {
			t.Errorf("grpc-go does not know %q: %v", c, err)
		}
		if uint32(theirs) != uint32(c) {
			t.Errorf("%q is code %d here and %d in grpc-go", c, uint32(c), uint32(theirs))
		}
	}
}

func TestCodeBeyondTheDefinedIsClamped(t *testing.T) {
	for _, tc := range []struct {
		in         Code
		wantString string
		wantLabel  string
		wantClamp  Code
	}{
		{OK, "OK", "OK", OK},
		{Unauthenticated, "UNAUTHENTICATED", "UNAUTHENTICATED", Unauthenticated},
		{NumCodes, "CODE_17", "UNKNOWN", Unknown},
		{math.MaxUint32, "CODE_4294967295", "UNKNOWN", Unknown},
	} {
		if got := tc.in.String(); got != tc.wantString {
			t.Errorf("Code(%d).String() = %q, want %q", uint32(tc.in), got, tc.wantString)
		}
		if got := tc.in.Label(); got != tc.wantLabel {
			t.Errorf("Code(%d).Label() = %q, want %q", uint32(tc.in), got, tc.wantLabel)
		}
		if got := tc.in.Clamp(); got != tc.wantClamp {
			t.Errorf("Code(%d).Clamp() = %v, want %v", uint32(tc.in), got, tc.wantClamp)
		}
	}
}

func TestParseStatusReadsDigitsOnly(t *testing.T) {
	for _, tc := range []struct {
		in     string
		want   Code
		wantOK bool
	}{
		{"0", OK, true},
		{"14", Unavailable, true},
		{"014", Unavailable, true},
		{"17", 17, true},
		{"4294967295", math.MaxUint32, true},
		{"4294967296", Unknown, false},
		{"9999999999", Unknown, false},
		{"00000000000", Unknown, false},
		{"", Unknown, false},
		{"-1", Unknown, false},
		{"+1", Unknown, false},
		{" 1", Unknown, false},
		{"1 ", Unknown, false},
		{"OK", Unknown, false},
	} {
		got, ok := ParseStatus(tc.in)
		if got != tc.want || ok != tc.wantOK {
			t.Errorf("ParseStatus(%q) = %d, %v; want %d, %v", tc.in, got, ok, tc.want, tc.wantOK)
		}
	}
}

func TestAppendStatusIsReadBack(t *testing.T) {
	for _, c := range []Code{OK, Unauthenticated, 17, math.MaxUint32} {
		got, ok := ParseStatus(string(AppendStatus(nil, c)))
		if got != c || !ok {
			t.Errorf("ParseStatus(AppendStatus(%d)) = %d, %v", uint32(c), uint32(got), ok)
		}
	}
}

func TestHTTPStatusFollowsTheAgreedTable(t *testing.T) {
	want := map[Code]int{
		0: 200, 1: 499, 2: 500, 3: 400, 4: 504, 5: 404, 6: 409, 7: 403, 8: 429, 9: 400, 10: 409,
		11: 400, 12: 501, 13: 500, 14: 503, 15: 500, 16: 401,
		17: 500, 18: 500, math.MaxUint32: 500, // undefined ones are UNKNOWN
	}
	for c, status := range want {
		if got := HTTPStatus(c); got != status {
			t.Errorf("HTTPStatus(%v) = %d, want %d", c, got, status)
		}
	}
}

func TestFromHTTPFollowsTheStatusMapping(t *testing.T) {
	want := map[int]Code{
		400: Internal, 431: Internal, 401: Unauthenticated, 403: PermissionDenied, 404: Unimplemented,
		429: Unavailable, 502: Unavailable, 503: Unavailable, 504: Unavailable,
	}
	for status := -1; status < 1000; status++ {
		code, listed := want[status]
		if !listed {
			code = Unknown
		}
		if got := FromHTTP(status); got != code {
			t.Errorf("FromHTTP(%d) = %v, want %v", status, got, code)
		}
	}
}

func TestFromResetFollowsTheErrorTable(t *testing.T) {
	want := map[uint32]Code{
		0x7: Unavailable, 0x8: Canceled, 0xb: ResourceExhausted, 0xc: PermissionDenied,
	}
	for _, errCode := range []uint32{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0xa, 0xb, 0xc, 0xd, 0xe, math.MaxUint32} {
		code, listed := want[errCode]
		if !listed {
			code = Internal
		}
		if got := FromReset(errCode); got != code {
			t.Errorf("FromReset(%#x) = %v, want %v", errCode, got, code)
		}
	}
}
