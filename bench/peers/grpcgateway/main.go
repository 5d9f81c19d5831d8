// Grpcgateway is grpc-gateway as its documentation has it: the generated handler
// of one service before net/http, with a connection to each of two backends.
package main

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"

	echov1 "sluice/bench/peers/grpcgateway/echo/v1"
)

func main() {
	listen := flag.String("listen", "", "host:port")
	backends := flag.String("backends", "", "host:port,host:port")
	flag.Parse()
	if err := serve(*listen, strings.Split(*backends, ",")); err != nil {
		fmt.Fprintln(os.Stderr, "grpcgateway:", err)
		os.Exit(1)
	}
}

func serve(listen string, backends []string) error {
	conn, err := connect(backends)
	if err != nil {
		return err
	}
	defer conn.Close()
	mux := runtime.NewServeMux()
	if err := echov1.RegisterEchoHandler(context.Background(), mux, conn); err != nil {
		return fmt.Errorf("register the service: %w", err)
	}
	return http.ListenAndServe(listen, mux)
}

// connect spreads the RPCs over the backends in turn.
func connect(backends []string) (*grpc.ClientConn, error) {
	var state resolver.State
	for _, addr := range backends {
		state.Endpoints = append(state.Endpoints, resolver.Endpoint{Addresses: []resolver.Address{{Addr: addr}}})
	}
	both := manual.NewBuilderWithScheme("backends")
	both.InitialState(state)
	return grpc.NewClient("backends:///echo",
		grpc.WithResolvers(both),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}]}`))
}
