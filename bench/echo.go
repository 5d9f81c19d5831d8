package main

import (
	"context"
	"flag"
	"fmt"
	"math"
	"net"
	"strings"

	"google.golang.org/grpc"

	echov1 "sluice/bench/echo/v1"
)

// echoMain is a backend of the rows of translated protocols: a gRPC server that
// answers every Get with a small note. nghttpd, which serves the other rows, knows
// neither these methods nor protobuf.
func echoMain(args []string) error {
	flags := flag.NewFlagSet("echo", flag.ContinueOnError)
	listen := flags.String("listen", "", "host:port")
	letter := flags.String("fill", "", "letter of which the notes are made")
	streams := flags.Uint("streams", 100, "MAX_CONCURRENT_STREAMS")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if len(*letter) != 1 || *streams > math.MaxUint32 {
		return fmt.Errorf("-fill %q, -streams %d: want one letter and 32 bits", *letter, *streams)
	}
	ln, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	s := grpc.NewServer(grpc.MaxConcurrentStreams(uint32(*streams)))
	echov1.RegisterEchoServer(s, noteServer{fill: (*letter)[0]})
	return s.Serve(ln)
}

type noteServer struct {
	echov1.UnimplementedEchoServer
	fill byte
}

func (s noteServer) Get(_ context.Context, r *echov1.GetRequest) (*echov1.Note, error) {
	return newNote(r, s.fill), nil
}

// newNote is the answer of the backend with that letter: 100 bytes in protobuf for
// the request that everyone makes.
func newNote(r *echov1.GetRequest, fill byte) *echov1.Note {
	return &echov1.Note{
		Name:   r.Name,
		Size:   int64(r.Lines) * 1_000_000,
		Labels: []string{"first", "second"},
		Pinned: true,
		Text:   strings.Repeat(string(fill), 64),
	}
}

// noteRequest is the request of every RPC of the translated rows.
var noteRequest = &echov1.GetRequest{Name: "bench-note", Lines: 12}
