// Tries a case in TLS handshakes over loopback.

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"time"
)

const patience = 10 * time.Second

var versions = []struct {
	tool  string
	value uint16
}{
	{"go-tls1.2", tls.VersionTLS12},
	{"go-tls1.3", tls.VersionTLS13},
}

func handshakes(c *testCase) []result {
	var results []result
	for _, version := range versions {
		if err := handshake(c, version.value, c.Host); err != nil {
			results = append(results, result{tool: version.tool, err: err})
			continue
		}
		results = append(results, result{tool: version.tool, said: "ok"})
		if c.isFor(serverAuth) {
			err := hostRefused(handshake(c, version.value, c.WrongHost))
			results = append(results, result{version.tool, "wrong-host-refused", err})
		}
	}
	return results
}

// The certificate is used for each of its usages. If it is only a client's, the server's is made
// for the occasion.
func handshake(c *testCase, version uint16, host string) error {
	own, err := tls.LoadX509KeyPair(c.file("tls.crt"), c.file("tls.key"))
	if err != nil {
		return err
	}
	server := &tls.Config{MinVersion: version, MaxVersion: version}
	client := &tls.Config{MinVersion: version, MaxVersion: version, ServerName: host}
	if c.isFor(serverAuth) {
		server.Certificates = []tls.Certificate{own}
		client.RootCAs = c.roots
	} else {
		stranger, err := selfSigned(host)
		if err != nil {
			return err
		}
		server.Certificates = []tls.Certificate{stranger}
		client.RootCAs = pool([]*x509.Certificate{stranger.Leaf})
	}
	if c.isFor(clientAuth) {
		server.ClientAuth = tls.RequireAndVerifyClientCert
		server.ClientCAs = c.roots
		client.Certificates = []tls.Certificate{own}
	}
	return connect(server, client)
}

func connect(server, client *tls.Config) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer listener.Close()
	dialled, err := net.DialTimeout("tcp", listener.Addr().String(), patience)
	if err != nil {
		return err
	}
	accepted, err := listener.Accept()
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- serve(tls.Server(accepted, server)) }()
	asked := ask(tls.Client(dialled, client))
	return errors.Join(asked, <-served)
}

// Answers what the client says: in TLS 1.3 the client believes that the handshake is over before
// the server has seen its certificate.
func serve(connection *tls.Conn) error {
	defer connection.Close()
	if err := connection.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	question := make([]byte, 4)
	if _, err := io.ReadFull(connection, question); err != nil {
		return fmt.Errorf("server: %w", err)
	}
	if _, err := connection.Write(question); err != nil {
		return fmt.Errorf("server: %w", err)
	}
	return nil
}

func ask(connection *tls.Conn) error {
	defer connection.Close()
	if err := connection.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := connection.Write([]byte("ping")); err != nil {
		return fmt.Errorf("client: %w", err)
	}
	answer, err := io.ReadAll(connection)
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	if string(answer) != "ping" {
		return fmt.Errorf("client: the server answered %q", answer)
	}
	return nil
}

func selfSigned(host string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		DNSNames:     []string{host},
		NotBefore:    time.Now().Add(-time.Minute),
		NotAfter:     time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, err
}
