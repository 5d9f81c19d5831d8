package main

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	echov1 "sluice/bench/echo/v1"
)

// speech is how the clients of a row ask: the request of every RPC, and how its
// reply is read.
type speech struct {
	http1  bool
	path   string
	fields [][2]string
	data   []byte // body of the request; nil makes it a GET

	// protocol and relay are how sluice has to count it: under which protocol, empty
	// when nobody looks, and whether on the path of the relay.
	protocol string
	relay    bool

	// read takes the note out of a good reply. late is a header field that leaves the
	// RPC no time at all, tardy what the reply to that has to contain, in lower case.
	read  func(answer) (*echov1.Note, error)
	late  [2]string
	tardy string
}

// nativeSpeech is gRPC over HTTP/2, asked of the file servers.
func nativeSpeech(path string) *speech {
	return &speech{path: path, fields: requestFields, data: message(unaryBytes, requestFill), relay: true}
}

// noteFrame is the request in gRPC's framing, the same in gRPC-Web.
func noteFrame() []byte {
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(noteRequest)
	if err != nil {
		panic(fmt.Sprintf("marshal a request of constants: %v", err))
	}
	n := len(raw) // far below 64 KiB
	return append([]byte{0, 0, 0, byte(n >> 8), byte(n)}, raw...)
}

var (
	getPath  = echov1.Echo_Get_FullMethodName
	restPath = fmt.Sprintf("/v1/notes/%s?lines=%d", noteRequest.Name, noteRequest.Lines)
	jsonBody = fmt.Sprintf(`{"name":%q,"lines":%d}`, noteRequest.Name, noteRequest.Lines)
)

var (
	speakNative = &speech{
		path: getPath, fields: requestFields, data: noteFrame(),
		protocol: "grpc", relay: true,
		read: readNative, late: [2]string{"grpc-timeout", "1n"}, tardy: "grpc-status: 4",
	}
	speakWebHTTP1 = &speech{
		http1: true, path: getPath, fields: webFields, data: noteFrame(),
		protocol: "grpc-web",
		read:     readWeb, late: [2]string{"grpc-timeout", "1n"}, tardy: "grpc-status: 4",
	}
	speakWebHTTP2 = &speech{
		path: getPath, fields: webFields, data: noteFrame(),
		protocol: "grpc-web", relay: true,
		read: readWeb, late: [2]string{"grpc-timeout", "1n"}, tardy: "grpc-status: 4",
	}
	speakREST = &speech{
		http1: true, path: restPath, fields: [][2]string{{"grpc-timeout", "5S"}},
		protocol: "rest",
		read:     readJSON, late: [2]string{"grpc-timeout", "1n"}, tardy: `"code":4`,
	}
	speakConnectJSON = &speech{
		http1: true, path: getPath, data: []byte(jsonBody),
		fields:   [][2]string{{"content-type", "application/json"}, {"connect-protocol-version", "1"}, {"connect-timeout-ms", "5000"}},
		protocol: "connect",
		read:     readJSON, late: [2]string{"connect-timeout-ms", "0"}, tardy: `"deadline_exceeded"`,
	}
)

var webFields = [][2]string{
	{"content-type", "application/grpc-web+proto"},
	{"x-grpc-web", "1"},
	{"grpc-timeout", "5S"},
}

// counts is what sluice has to have counted after so many good RPCs.
func (s *speech) counts(rpcs int) counts {
	c := counts{ok: rpcs, elsewise: rpcs}
	if s.relay {
		c.relay, c.elsewise = rpcs, 0
	}
	if s.protocol != "" {
		c.spoken = rpcs
	}
	return c
}
