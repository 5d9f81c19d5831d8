package rest

import (
	"net/http"
	"net/http/httptest"
	"reflect"
	"testing"

	"sluice/gateway/wire"
)

func TestMetadataOfLeavesOutWhatConcernsTheHop(t *testing.T) {
	r := httptest.NewRequest("POST", "/x/y", nil)
	r.Header = http.Header{
		"Authorization": {"Bearer x"}, "Cookie": {"a=b"}, "User-Agent": {"curl"}, "X-Many": {"1", "2"},
		"X-Trace-Bin": {"AAE=", "AAE, 3q2+7w"}, "Traceparent": {"00-1"}, "Origin": {"https://example.com"},

		"Connection": {"close, X-Hop", "keep-alive"}, "X-Hop": {"1"}, "Keep-Alive": {"5"}, "Te": {"trailers"},
		"Transfer-Encoding": {"chunked"}, "Upgrade": {"h2c"}, "Trailer": {"X-Last"}, "Expect": {"100-continue"},
		"Proxy-Authorization": {"Basic x"}, "Http2-Settings": {"AAMAAABk"}, "Host": {"other"}, "Forwarded": {"for=me"},
		"Content-Type": {"application/json"}, "Content-Length": {"5"}, "Content-Encoding": {"gzip"},
		"Accept": {"*/*"}, "Accept-Encoding": {"br"}, "Accept-Language": {"de"},
		"Grpc-Timeout": {"1S"}, "Grpc-Encoding": {"gzip"}, "Grpc-Status": {"0"},
		"Connect-Timeout-Ms": {"5"}, "Connect-Protocol-Version": {"1"},
		"X-Forwarded-For": {"10.0.0.1"}, "X-Forwarded-Host": {"evil"},
	}
	got, st := metadataOf(r)
	want := http.Header{
		"Authorization": {"Bearer x"}, "Cookie": {"a=b"}, "User-Agent": {"curl"}, "X-Many": {"1", "2"},
		"X-Trace-Bin": {"AAE=", "AAE, 3q2+7w"}, "Traceparent": {"00-1"}, "Origin": {"https://example.com"},
	}
	if st != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v\nwant %v", got, st, want)
	}
}

func TestMetadataOfRefusesWhatIsNoBase64(t *testing.T) {
	r := httptest.NewRequest("POST", "/x/y", nil)
	r.Header.Set("X-Trace-Bin", "AAE=, %%%")
	if md, st := metadataOf(r); st == nil || st.Code != wire.InvalidArgument {
		t.Errorf("got %v, %v; want INVALID_ARGUMENT", md, st)
	}
}

func TestAddMetadataKeepsTheAnswersOwnFields(t *testing.T) {
	md := http.Header{
		"X-Many": {"1", "2"}, "x-low": {"3"}, "X-Raw-Bin": {"AAE"}, "Set-Cookie": {"a=b"},
		"Content-Type": {"application/grpc"}, "Content-Length": {"1"}, "Grpc-Status": {"0"}, "Grpc-Message": {""},
		"Connection": {"close"}, "Trailer": {"X"}, "Trailer-X": {"forged"}, "Connect-Content-Encoding": {"gzip"},
		":status": {"200"}, "Accept-Encoding": {"gzip"}, "Transfer-Encoding": {"chunked"},
	}
	header := http.Header{"Content-Type": {"application/json"}}
	addMetadata(header, "", md)
	want := http.Header{
		"Content-Type": {"application/json"}, "X-Many": {"1", "2"}, "X-Low": {"3"}, "X-Raw-Bin": {"AAE"}, "Set-Cookie": {"a=b"},
	}
	if !reflect.DeepEqual(header, want) {
		t.Errorf("header: got %v, want %v", header, want)
	}
	trailer := http.Header{}
	addMetadata(trailer, "Trailer-", md)
	want = http.Header{
		"Trailer-X-Many": {"1", "2"}, "Trailer-X-Low": {"3"}, "Trailer-X-Raw-Bin": {"AAE"}, "Trailer-Set-Cookie": {"a=b"},
		"Trailer-Trailer-X": {"forged"},
	}
	if !reflect.DeepEqual(trailer, want) {
		t.Errorf("trailer: got %v, want %v", trailer, want)
	}
}
