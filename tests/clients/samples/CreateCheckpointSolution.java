package com.huaweicloud.sdk.test;

import com.huaweicloud.sdk.core.auth.ICredential;
import com.huaweicloud.sdk.core.auth.BasicCredentials;
import com.huaweicloud.sdk.core.exception.ConnectionException;
import com.huaweicloud.sdk.core.exception.RequestTimeoutException;
import com.huaweicloud.sdk.core.exception.ServiceResponseException;
import com.huaweicloud.sdk.cbr.v1.region.CbrRegion;
import com.huaweicloud.sdk.cbr.v1.*;
import com.huaweicloud.sdk.cbr.v1.model.*;

import java.util.List;
import java.util.ArrayList;

public class CreateCheckpointSolution {

    public static void main(String[] args) {
        // The AK and SK used for authentication are hard-coded or stored in plaintext, which has great security risks. It is recommended that the AK and SK be stored in ciphertext in configuration files or environment variables and decrypted during use to ensure security.
        // In this example, AK and SK are stored in environment variables for authentication. Before running this example, set environment variables CLOUD_SDK_AK and CLOUD_SDK_SK in the local environment
        String ak = System.getenv("CLOUD_SDK_AK");
        String sk = System.getenv("CLOUD_SDK_SK");

        ICredential auth = new BasicCredentials()
                .withAk(ak)
                .withSk(sk);

        CbrClient client = CbrClient.newBuilder()
                .withCredential(auth)
                .withRegion(CbrRegion.valueOf("<YOUR REGION>"))
                .build();
        CreateCheckpointRequest request = new CreateCheckpointRequest();
        VaultBackupReq body = new VaultBackupReq();
        List<String> listParametersResources = new ArrayList<>();
        listParametersResources.add("94eba8b2-acc9-4d82-badc-127144cc5526");
        CheckpointParam parametersCheckpoint = new CheckpointParam();
        parametersCheckpoint.withAutoTrigger(true)
            .withDescription("backup_description")
            .withIncremental(true)
            .withName("backup_name")
            .withResources(listParametersResources);
        VaultBackup checkpointbody = new VaultBackup();
        checkpointbody.withParameters(parametersCheckpoint)
            .withVaultId("3b5816b5-f29c-4172-9d9a-76c719a659ce");
        body.withCheckpoint(checkpointbody);
        request.withBody(body);
        try {
            CreateCheckpointResponse response = client.createCheckpoint(request);
            System.out.println(response.toString());
        } catch (ConnectionException e) {
            e.printStackTrace();
        } catch (RequestTimeoutException e) {
            e.printStackTrace();
        } catch (ServiceResponseException e) {
            e.printStackTrace();
            System.out.println(e.getHttpStatusCode());
            System.out.println(e.getRequestId());
            System.out.println(e.getErrorCode());
            System.out.println(e.getErrorMsg());
        }
    }
}
