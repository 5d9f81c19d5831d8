package wire

import "testing"

func TestKindOfTellsProtocolsApart(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want Kind
	}{
		{"application/grpc", KindGRPC},
		{"application/grpc+proto", KindGRPC},
		{"application/grpc+json; charset=utf-8", KindGRPC},
		{"application/grpc+", KindGRPC}, // a codec with no name, which grpc-go takes
		{"application/grpc;", KindGRPC},
		{"application/grpc;charset=utf-8", KindGRPC},
		{"application/grpc ; charset=utf-8", KindGRPC},
		{"application/grpc ", KindGRPC},
		{"Application/GRPC+Proto", KindGRPC},

		{"application/grpc-web", KindGRPCWeb},
		{"application/grpc-web+proto", KindGRPCWeb},
		{"application/grpc-web;charset=utf-8", KindGRPCWeb},
		{"application/grpc-web-text", KindGRPCWebText},
		{"application/grpc-web-text+proto", KindGRPCWebText},
		{"application/connect+proto", KindConnectStream},
		{"Application/Connect+json", KindConnectStream},

		{"", KindOther},
		{"application/grpcx", KindOther},
		{"application/grpc x", KindOther},
		{"application/grpc/x", KindOther},
		{"application/grpc-webx", KindOther},
		{"application/grpc-web-texty", KindOther},
		{"application/grp", KindOther},
		{" application/grpc", KindOther},
		{"text/application/grpc", KindOther},
		{"application/connect", KindOther},
		{"application/proto", KindOther},
		{"application/json", KindOther},
	} {
		if got := KindOf(tc.in); got != tc.want {
			t.Errorf("KindOf(%q) = %v, want %v", tc.in, got, tc.want)
		}
		if got, want := IsGRPC(tc.in), tc.want == KindGRPC; got != want {
			t.Errorf("IsGRPC(%q) = %v, want %v", tc.in, got, want)
		}
		if got, want := IsGRPCWeb(tc.in), tc.want == KindGRPCWeb || tc.want == KindGRPCWebText; got != want {
			t.Errorf("IsGRPCWeb(%q) = %v, want %v", tc.in, got, want)
		}
	}
}
